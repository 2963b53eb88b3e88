"""Weight decay of the rows that a step looks up, by as much as they have missed since they were last looked up.

Decay of all rows adds ``weight_decay * w`` to the gradient of every row at every step. Here a row without a gradient
stays as it is, and the next time it has one, the ``n`` steps since the last time, this one included, are made up for:

- Adam, Adagrad and their kin add ``n * weight_decay * w`` to its gradient. A row that is looked up in a fraction f of
  the steps so gets ``weight_decay / f * w`` a look-up in expectation: over all steps the gradient of the same
  objective, with the same minimum.
- SGD shrinks the row by the product of ``1 - learning_rate * weight_decay`` over the ``n`` steps: to what decay of all
  rows would have made of it, exactly, whatever the schedule of the learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

TOTAL, DECAYED = "decay_total", "decay_of_row"  # in an optimizer's state of a table

State = dict[str, Any]


@dataclass(frozen=True)
class RowDecay:
    """Adds missed decay to gradients.

    Attributes:
        weight_decay: of a step.
        compounds: whether decay multiplies weights, as in SGD; ``lr * weight_decay`` must then be below 1.
    """

    weight_decay: float
    compounds: bool = False

    def new_state(self, table: torch.Tensor) -> State:
        """What is kept of a table ``[rows, d]``: the decay of all steps so far, and each row's share of it, float64."""
        rows = torch.zeros(len(table), dtype=torch.float64, device=table.device)
        return {TOTAL: torch.zeros((), dtype=torch.float64, device=table.device), DECAYED: rows}

    def add_to(
        self, gradient: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, state: State, lr: float
    ) -> torch.Tensor:
        """Count a step, and add to the gradients ``[n, d]`` of ``rows [n]``, each there once, the decay they missed."""
        state[TOTAL] += -math.log1p(-lr * self.weight_decay) if self.compounds else self.weight_decay
        missed = state[TOTAL] - state[DECAYED].index_select(0, rows)
        state[DECAYED].index_fill_(0, rows, float(state[TOTAL]))
        if self.compounds:
            missed = torch.expm1(-missed) / -lr
        return torch.addcmul(gradient, table.index_select(0, rows), missed.to(table.dtype).unsqueeze(1))


def looked_up(gradient: torch.Tensor) -> torch.Tensor:
    """The rows ``[n]`` of a gradient ``[rows, d]`` that are not zero: a look-up that only fills a batch has none."""
    return (torch.linalg.vector_norm(gradient, dim=1) != 0).nonzero().flatten()


def decay_looked_up_rows(optimizer: torch.optim.Optimizer, decay: RowDecay) -> None:
    """Let an optimizer of whole tables, itself without weight decay, decay the rows that have a gradient.

    Its state then holds what `RowDecay` keeps, so that checkpoints do.
    """
    kept: dict[torch.Tensor, State] = {}  # the optimizer would not initialize a state that it finds begun

    @torch.no_grad()
    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for table in (table for table in group["params"] if table.grad is not None):
                state = optimizer.state[table] if TOTAL in optimizer.state.get(table, {}) else decay.new_state(table)
                rows, gradient = looked_up(table.grad), table.grad
                gradient[rows] = decay.add_to(gradient[rows], table.data, rows, state, group["lr"])
                kept[table] = {key: state[key] for key in (TOTAL, DECAYED)}

    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for table, state in kept.items():
            optimizer.state[table].update(state)

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
