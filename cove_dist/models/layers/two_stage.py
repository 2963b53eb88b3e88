"""The two-stage classifier of FANS (Liu et al., WWW 2023): first an item's category, then the item within it.

Shapes: ``N`` predictions, ``V`` items, ``C`` categories, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from cove_dist.models.layers.bert import prediction_transform, start_as_bert


class TwoStageClassifier(nn.Module):
    """``p(item | hidden) = p(category of item | hidden) * p(item | its category, hidden)``.

    Categories are an argument, ``[V]`` numbers below C, because codes may change during training. Items are scored with
    their embeddings, whereas the authors' published program has a separate output matrix per category. That program
    counts the second stage's loss only if the first stage is correct, and averages it over categories; here both stages
    always count, so that the loss is the likelihood; in training a category without items counts as well, so it is a
    bound of it.

    Args:
        dim: Width ``d``.
        num_categories: Number of categories ``C``. A category without items is never predicted.
    """

    def __init__(self, dim: int, num_categories: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.head = nn.Sequential(prediction_transform(dim), nn.Linear(dim, num_categories))
        self.head.apply(start_as_bert)

    def forward(self, hidden: torch.Tensor, items: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of all items.

        Args:
            hidden: Hidden states ``[N, d]``.
            items: Embeddings of the items ``[V, d]``.
            categories: Categories of the items ``[V]``.

        Returns:
            Log-probabilities ``[N, V]``, normalized over items.
        """
        scores = hidden @ items.T
        columns = categories.expand_as(scores)
        largest = scores.new_full((len(scores), self.num_categories), -torch.inf)
        largest = largest.scatter_reduce(1, columns, scores.detach(), "amax")
        scores = scores - largest.gather(1, columns)
        totals = torch.zeros_like(largest).scatter_add(1, columns, scores.exp())
        return self.category_log_probabilities(hidden, categories)[:, categories] + scores - totals.log()[:, categories]

    def category_log_probabilities(self, hidden: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Map hidden states ``[N, d]`` to log-probabilities of categories ``[N, C]``."""
        empty = torch.bincount(categories, minlength=self.num_categories) == 0
        return F.log_softmax(self.head(hidden).masked_fill(empty, -torch.inf), dim=1)


def rows_by_category(chosen: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Group rows by their category ``chosen [N]``; return each occurring category with its rows."""
    found, counts = torch.unique(chosen, return_counts=True)
    rows = torch.argsort(chosen, stable=True).split(counts.tolist())
    return list(zip(found.tolist(), rows, strict=True))
