"""Training steps on the device: no host sync, and two runs with the same bits under deterministic algorithms."""

from __future__ import annotations

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic products; read when CUDA is first used

import torch
from clock import Bench
from inputs import TRAINED, overrides
from runs import batches_in_memory, build_trainer, endless_steps

from results import Row

RUNS = (*TRAINED, ("sequential", "bert4rec", True))
ROOT = Path(__file__).resolve().parents[2]
OURS = (str(ROOT / "cove_dist"), str(ROOT / "data_pipeline"))
STEPS = 5


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind, model, cove in RUNS if not bench.tiny else RUNS[1::2]:
        name = f"{model}{' with COVE' if cove else ''}"
        words = (kind, model, cove)
        yield f"{name}, host syncs", partial(host_syncs, bench, *words)
        yield f"{name}, two runs", partial(two_runs, bench, *words)


def host_syncs(bench: Bench, kind: str, model: str, cove: bool) -> Row:
    """Count the calls of a step that wait for the device, by place; those that TorchRec makes are counted apart.

    TorchRec waits for the sizes of the next batch's exchange on another stream, one step ahead. Autograd reports the
    waits of its own threads to the thread that called it: these count as "backward pass", whoever made the node.
    """
    if bench.device.type == "cpu":
        return {"skipped": "needs CUDA"}
    trainer = build_trainer(overrides(kind, model, bench.work, bench.tiny, cove), bench)
    steps = endless_steps(trainer, batches_in_memory(trainer, 4))
    list(islice(steps, 4))
    torch.cuda.synchronize()
    places: Counter[str] = Counter()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if "called a synchronizing" in str(message):  # the mode itself warns that it is a prototype
            places[place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            list(islice(steps, STEPS))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    ours = {name: count for name, count in places.items() if not name.startswith("torchrec")}
    listed = ", ".join(f"{name} x{count / STEPS:g}" for name, count in places.most_common())
    row: Row = {"ok": not ours, "ours a step": sum(ours.values()) / STEPS}
    return row | {"TorchRec's a step": (sum(places.values()) - sum(ours.values())) / STEPS, "places": listed}


def place() -> str:
    """Return the innermost frame of this project, "torchrec" where the innermost is TorchRec's, or "backward pass"."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/autograd/" in frame.filename:
            return "backward pass"
        if "/torchrec/" in frame.filename:
            return f"torchrec {Path(frame.filename).name}:{frame.lineno}"
        if frame.filename.startswith(OURS):
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
    return "elsewhere"


def two_runs(bench: Bench, kind: str, model: str, cove: bool) -> Row:
    """Train twice from the same start; compare the bits of losses and of all parameters and moments."""
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (trained_state(bench, kind, model, cove) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    differing = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    return {
        "ok": not differing and first.keys() == second.keys(),
        "tensors": len(first),
        "differ": ", ".join(differing),
    }


def trained_state(bench: Bench, kind: str, model: str, cove: bool) -> dict[str, torch.Tensor]:
    trainer = build_trainer(overrides(kind, model, bench.work, bench.tiny, cove), bench)
    outputs = list(islice(endless_steps(trainer, batches_in_memory(trainer, 4)), STEPS))
    state = {f"loss {step}": output.losses["loss"].cpu() for step, output in enumerate(outputs)}
    return state | dict(tensors(trainer.train_state.state_dict(), ""))


def tensors(value: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested mappings, and the local shards of sharded ones, on the CPU."""
    if hasattr(value, "local_shards"):
        for number, shard in enumerate(value.local_shards()):
            yield f"{name}[{number}]", shard.tensor.detach().cpu().clone()
    elif isinstance(value, torch.Tensor):
        yield name, value.detach().cpu().clone()
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from tensors(each, f"{name}.{key}" if name else str(key))
