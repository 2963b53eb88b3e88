"""What a task knows of ids that the run to start from did not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from data_pipeline.schema import Entity


class NewRows(Protocol):
    """Makes table rows of new users and items from their neighbors."""

    def rows(self, entity: Entity, ids: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield some of the ids with their rows. Collective: every rank yields equally often, for its own ids.

        Args:
            entity: Whose rows.
            ids: New ids of this rank, int64 ``[n]``.

        Yields:
            Ids int64 ``[m]``, those with neighbors, and rows ``[m, d]`` on the device of the model.
        """
        ...
