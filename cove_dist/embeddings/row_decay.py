"""Weight decay of looked-up rows, which includes the decay of the steps since their last look-up.

Ordinary decay adds ``weight_decay * w`` to the gradient of every row at every step. Here a row without a gradient is
unchanged, and its next gradient applies the decay of the ``n`` steps since the previous one (this step included):

- Adam, Adagrad and similar optimizers add ``n * weight_decay * w`` to its gradient. A row looked up in a fraction f of
  the steps gets ``weight_decay / f * w`` per look-up in expectation: over all steps, the gradient of the same objective
  with the same minimum.
- SGD multiplies the row by the product of ``1 - learning_rate * weight_decay`` over the ``n`` steps, which equals
  ordinary decay exactly for any learning-rate schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

TOTAL, DECAYED = "decay_total", "decay_of_row"  # keys in the optimizer state of a table

State = dict[str, Any]


@dataclass(frozen=True)
class RowDecay:
    """Adds the decay of skipped steps to gradients.

    Attributes:
        weight_decay: Weight decay per step.
        compounds: Whether decay multiplies weights, as in SGD; ``lr * weight_decay`` must then be below 1.
        factors: Factors ``[rows]`` of the decay of each row, by table (`decay_factors`); missing: 1.
            Decay that compounds has none.
    """

    weight_decay: float
    compounds: bool = False
    factors: Mapping[torch.Tensor, torch.Tensor] = field(default_factory=dict)

    def new_state(self, table: torch.Tensor) -> State:
        """Return the initial state of a table ``[rows, d]``: total decay so far, and the part applied per row."""
        rows = torch.zeros(len(table), dtype=torch.float64, device=table.device)
        return {TOTAL: torch.zeros((), dtype=torch.float64, device=table.device), DECAYED: rows}

    def add_to(
        self, gradient: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, state: State, lr: float
    ) -> torch.Tensor:
        """Count a step, and add the outstanding decay to the gradients ``[n, d]`` of distinct ``rows [n]``."""
        state[TOTAL] += -math.log1p(-lr * self.weight_decay) if self.compounds else self.weight_decay
        missed = state[TOTAL] - state[DECAYED].index_select(0, rows)
        state[DECAYED].index_copy_(0, rows, state[TOTAL].expand(len(rows)))  # without waiting for the number
        if self.compounds:
            missed = torch.expm1(-missed) / -lr
        if table in self.factors:
            missed = missed * self.factors[table].index_select(0, rows)
        return torch.addcmul(gradient, table.detach().index_select(0, rows), missed.to(table.dtype).unsqueeze(1))


def looked_up(gradient: torch.Tensor) -> torch.Tensor:
    """Return the non-zero rows ``[n]`` of a gradient ``[rows, d]``; padding look-ups have zero gradients."""
    return (torch.linalg.vector_norm(gradient, dim=1) != 0).nonzero().flatten()


def decay_looked_up_rows(optimizer: torch.optim.Optimizer, decay: RowDecay) -> None:
    """Make an optimizer of whole tables (configured without weight decay) decay the rows that have a gradient.

    Its state then includes that of `RowDecay`, so checkpoints contain it.
    """
    kept: dict[torch.Tensor, State] = {}  # the optimizer does not initialize a non-empty state

    @torch.no_grad()
    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for table in (table for table in group["params"] if table.grad is not None):
                state = optimizer.state[table] if TOTAL in optimizer.state.get(table, {}) else decay.new_state(table)
                rows, gradient = looked_up(table.grad), table.grad
                gradient[rows] = decay.add_to(gradient[rows], table, rows, state, group["lr"])
                kept[table] = {key: state[key] for key in (TOTAL, DECAYED)}

    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for table, state in kept.items():
            optimizer.state[table].update(state)

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
