"""Weight decay of table rows in proportion to a power of how often their ids occur in training.

The row of an id with ``n_i`` occurrences decays by ``weight_decay * n_i^power / mean_j(n_j^power)``, where the mean is
over the ids seen in training, so that the mean decay of a row is ``weight_decay``. With ``power=1`` the decay of a row
is the same for each of its look-ups, in expectation; below, rows of frequent ids decay less per look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cove_dist.errors import ConfigError


def decay_factors(counts: torch.Tensor, power: float) -> torch.Tensor:
    """Return the factors of the decay of a table's rows, float32 ``[rows]``.

    Args:
        counts: Occurrences in training of the id of each row, int64 ``[rows]``; 0 for rows of no seen id, which get no
            decay.
        power: Exponent, above 0.

    Raises:
        ConfigError: A count to this power is no float64.

    Example:
        >>> decay_factors(torch.tensor([1, 4, 0]), 0.5)
        tensor([0.6667, 1.3333, 0.0000])
    """
    powers = counts.double() ** power
    if not powers.isfinite().all():
        raise ConfigError(
            f"embeddings.optimizer.weight_decay_frequency_power = {power}: {int(counts.max())} occurrences to this"
            " power are too large a number; 0.5 to 1 are usual"
        )
    return (powers / powers[counts > 0].mean()).float()


def decay_by_frequency(
    optimizer: torch.optim.Optimizer, weight_decay: float, factors: Mapping[torch.Tensor, torch.Tensor]
) -> None:
    """Make an optimizer of whole tables (configured without weight decay) decay each row by its factor at every step.

    Args:
        optimizer: Optimizer of tables ``[rows, d]``.
        weight_decay: Mean weight decay of a row.
        factors: Factors of every table's rows ``[rows]``, from `decay_factors`.
    """

    @torch.no_grad()
    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for table in (table for table in group["params"] if table.grad is not None):
                decay = (weight_decay * factors[table]).unsqueeze(1)
                table.grad.addcmul_(table.data, decay)

    optimizer.register_step_pre_hook(before_step)
