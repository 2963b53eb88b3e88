"""The neighbor pull of a run: its weight, and the degrees of users and items in the training data."""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
import torch

from cove_dist.losses import neighbor_pull
from cove_dist.models.cf.base import Recommender
from data_pipeline.history import History
from data_pipeline.schema import Entity
from data_pipeline.streaming.transforms import occurrences


class NeighborPull:
    """Computes `neighbor_pull` for the positives of a batch, times its weight.

    Args:
        weight: Weight of the loss.
        folder: Folder of the prepared data, whose training interactions are counted at first use: 4 bytes an id.
        num_items: Number of items seen in training.
    """

    def __init__(self, weight: float, folder: str, num_items: int) -> None:
        self._weight, self._folder, self._num_items = weight, folder, num_items

    @cached_property
    def _degrees(self) -> tuple[torch.Tensor, torch.Tensor]:
        history = History.load(self._folder, "train")
        counts = np.diff(history.offsets), occurrences(history, self._num_items)
        users, items = (torch.from_numpy(each).float() for each in counts)
        return users, items

    def loss(
        self,
        head: Recommender,
        users: torch.Tensor,
        items: torch.Tensor,
        user_ids: torch.Tensor,
        item_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Return the weighted loss, a scalar.

        Args:
            head: Model that knows where rows are near those of their neighbors.
            users, items: Table rows of the positives ``[B, d]``.
            user_ids, item_ids: Their ids int64 ``[B]``, all seen in training.
        """
        of_users, of_items = self._degrees
        if of_users.device != users.device:
            self._degrees = of_users, of_items = of_users.to(users.device), of_items.to(users.device)
        degrees = of_users.index_select(0, user_ids), of_items.index_select(0, item_ids)
        return self._weight * neighbor_pull(users, items, *degrees, partial(_from_neighbors, head))


def _from_neighbors(head: Recommender, entity: Entity, rows: torch.Tensor) -> torch.Tensor:
    found = head.row_from_neighbors(entity, rows)
    assert found is not None, "users and items share no space"  # refused with the configuration
    return found
