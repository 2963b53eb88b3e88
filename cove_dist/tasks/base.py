"""What the trainer asks of every task's model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from cove_dist.embeddings.tables import Tables
from data_pipeline.batch import Batch


class StepOutput(Protocol):
    """What a step leaves behind, detached.

    Attributes:
        rows: of this rank, over which the losses are means.
        losses: scalars: the total, ``loss``, and its parts.
    """

    @property
    def rows(self) -> int: ...

    @property
    def losses(self) -> dict[str, torch.Tensor]: ...


class TaskModel(Protocol):
    """A module whose forward reads its tables by an attribute of the batch, as the train pipeline's tracer needs.

    Attributes:
        tables: sharded.
        objective: everything else, replicated; its ``quantizers`` is an `nn.ModuleDict` by entity.
    """

    tables: Tables
    objective: nn.Module

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, StepOutput]:
        """The loss to differentiate, weighted for uneven ranks, and what the step leaves behind."""
        ...
