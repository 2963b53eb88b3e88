"""Training epoch by epoch under one stopwatch: the same for this project and for its rivals, so it imports neither.

After an epoch, validation is evaluated; its time counts apart. The test split is evaluated with the weights that did
best on validation, and untimed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

METRIC = "ndcg@10"  # decides which epoch was best

Metrics = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How long a run is.

    Attributes:
        epochs: At most.
        max_steps: Of an epoch; None: all. The rest of the epoch is left out, so quality means nothing then.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated. None: no evaluation, where
            `max_steps` is given.
        patience: Evaluations without a better value of `METRIC` after which training ends; None: never.
    """

    epochs: int
    max_steps: int | None = None
    evaluate_every: int | None = 1
    patience: int | None = None


class Contestant(Protocol):
    """What is trained.

    Attributes:
        name: For people.
        steps_per_epoch: Steps per epoch of the whole training split.
    """

    name: str
    steps_per_epoch: int

    def train_epoch(self, epoch: int, max_steps: int | None) -> int:
        """Train one epoch, numbered from 0, or so many steps of it. Returns the steps taken."""
        ...

    def validate(self) -> Metrics: ...

    def note_best(self) -> None:
        """Keep the weights as they are, or what they make of the test split."""
        ...

    def test(self) -> Metrics:
        """Return the test metrics of the weights that were noted last."""
        ...


def run(contestant: Contestant, plan: Plan) -> dict[str, Any]:
    """Train, and record of every epoch the steps, the seconds, and the validation metrics with their seconds."""
    epochs: list[dict[str, Any]] = []
    best, without_gain = None, 0
    for epoch in range(plan.epochs):
        start = time.perf_counter()
        steps = contestant.train_epoch(epoch, plan.max_steps)
        record: dict[str, Any] = {"steps": steps, "train_s": time.perf_counter() - start}
        epochs.append(record)
        last = epoch + 1 == plan.epochs
        if plan.evaluate_every is not None and (last or (epoch + 1) % plan.evaluate_every == 0):
            start = time.perf_counter()
            record["validation"] = contestant.validate()
            record["evaluation_s"] = time.perf_counter() - start
            value = record["validation"][METRIC]
            better = best is None or value > best
            best, without_gain = (value, 0) if better else (best, without_gain + 1)
            if better and plan.max_steps is None:
                contestant.note_best()
        tell(contestant.name, len(epochs), record)
        if plan.patience is not None and without_gain >= plan.patience:
            break
    test = contestant.test() if plan.max_steps is None else None
    return {"plan": asdict(plan), "steps_per_epoch": contestant.steps_per_epoch, "epochs": epochs, "test": test}


def tell(name: str, epoch: int, record: dict[str, Any]) -> None:
    evaluated = ""
    if "validation" in record:
        value, seconds = record["validation"][METRIC], record["evaluation_s"]
        evaluated = f", validation {METRIC} {value:.4f} in {seconds:.1f} s"
    print(f"{name}, epoch {epoch}: {record['steps']} steps in {record['train_s']:.1f} s{evaluated}", flush=True)
