"""Weights & Biases: ``pip install 'cove-dist[wandb]'``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cove_dist.loggers.base import LoggedRun, Logger, tag
from cove_dist.types import Text


class WeightsAndBiases(Logger):
    """Logs to a run of Weights & Biases, which a resumed run continues.

    Its files are in ``RUN/wandb``. The account is that of ``wandb login`` or of the environment.

    Args:
        project: Project.
        entity: User or team; None: the account's.
        group: Group of runs, such as the seeds of one experiment.
        name: Name of the run; None: that of the run folder.
        tags: Tags.
        mode: ``online``, ``offline`` (``wandb sync`` uploads later) or ``disabled``; None: ``WANDB_MODE``.
    """

    requires = ("wandb", "wandb")

    def __init__(
        self,
        *,
        project: Text = "cove_dist",
        entity: Text | None = None,
        group: Text | None = None,
        name: Text | None = None,
        tags: tuple[Text, ...] = (),
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        self._arguments = {"project": project, "entity": entity, "group": group, "tags": list(tags), "mode": mode}
        self._name = name

    def start(self, run: LoggedRun) -> None:
        import wandb

        known = run.identity("wandb")
        self._run = wandb.init(
            **self._arguments,
            name=self._name or run.folder.name,
            dir=str(run.folder),
            config=dict(run.config),
            id=known,
            resume="allow" if known else None,
        )
        run.remember("wandb", self._run.id)
        self._run.define_metric("*", step_metric="step")  # a resumed run may log a step again

    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, "epoch": epoch, **{tag(kind, name): value for name, value in metrics.items()}})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)
