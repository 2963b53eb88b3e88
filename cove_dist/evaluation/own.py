"""Base classes of metrics that a configuration adds by ``evaluation.metrics``: each has one method to write.

Shapes: ``B`` rows or lists.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torchmetrics import Metric

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.declarations import families_of
from cove_dist.evaluation.positions import Positions


class SampleMetric(CheckedMetric):
    """The mean of a value of every row, summed in float64: for click-through rate prediction.

    A metric that is no mean derives from `CheckedMetric`: ``update(logits, labels)``, and ``compute()`` a scalar.

    Example::

        @declares(Family("brier", "Brier score", higher_is_better=False))
        class Brier(SampleMetric):
            def values(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                return (logits.sigmoid() - labels).square()
    """

    scores_name = "logits"
    total: torch.Tensor
    samples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return a value of every row, ``[B]``.

        Args:
            logits: Logits, float64 ``[B]``.
            labels: Labels, 0 or 1, float64 ``[B]``.
        """

    def update(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: Logits, float ``[B]``.
            labels: Labels ``[B]``, 0 or 1.
            weights: Weights ``[B]`` of the mean, at least 0; None: all rows count the same.

        Raises:
            ValueError: Shapes differ or a label is neither 0 nor 1.
            FloatingPointError: Logits are not finite (on a GPU: raised by `compute`).
        """
        self.check_predictions(logits, labels)
        values = self.values(logits.double(), labels.double())
        if weights is None:
            self.total += values.sum()
            self.samples += len(logits)
        else:
            self.total += values @ weights.double()
            self.samples += weights.double().sum()

    def compute(self) -> torch.Tensor:
        """Return the mean, a float64 scalar; nan without samples, or if all weights are 0."""
        self.raise_if_refused()
        return self.total / self.samples


class ListMetric(Metric):
    """The mean of a value of every ranked list, at each k: for collaborative filtering and sequential models.

    Args:
        ndcg_at, hit_rate_at: Cutoffs k; the declared family says which of the two the metric has.

    Example::

        @declares(Family("precision", "precision", "hit_rate_at"))
        class Precision(ListMetric):
            def values(self, positions: Positions, positives: torch.Tensor, k: int) -> torch.Tensor:
                return positions.found(k) / k
    """

    full_state_update = False
    totals: torch.Tensor
    lists: torch.Tensor

    def __init__(self, ndcg_at: Sequence[int], hit_rate_at: Sequence[int]) -> None:
        super().__init__(compute_with_cache=False)
        [self.family] = families_of(type(self))
        self.at = tuple(ndcg_at if self.family.at == "ndcg_at" else hit_rate_at)
        self.names = self.family.names(ndcg_at, hit_rate_at)
        self.add_state("totals", torch.zeros(len(self.at), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("lists", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, positions: Positions, positives: torch.Tensor, k: int) -> torch.Tensor:
        """Return a value of every list at k, ``[B]``.

        Args:
            positions: Positions of the relevant items in the lists; with ties in expectation over their orders.
            positives: Number of relevant items of each list, ranked or not, int64 ``[B]``.
            k: Cutoff.
        """

    def update(self, positions: Positions, positives: torch.Tensor) -> None:
        """Add a batch of lists; see `values`."""
        self.totals += torch.stack([self.values(positions, positives, k).sum() for k in self.at])
        self.lists += len(positives)

    def compute(self) -> dict[str, torch.Tensor]:
        """Return float64 scalars by name, nan without lists."""
        return dict(zip(self.names, (self.totals / self.lists).unbind(), strict=True))
