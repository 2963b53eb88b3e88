"""AUC, and metrics that are means over all samples."""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeVar

import torch
from torch.nn import functional as F
from torchmetrics.utilities.data import dim_zero_cat

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.declarations import Family, declares

logger = logging.getLogger(__name__)

LOOSE, UNDEFINED = 1e-3, 0.05  # error bounds of the AUC beyond which it is warned of, and is not given


class AUC(NamedTuple):
    """What `BinnedAUC` computes.

    Attributes:
        auc: float64 scalar; nan when there are no positives or no negatives, or when the bound is above 0.05.
        error_bound: float64 scalar: the exact AUC lies within ``auc ± error_bound``.
        samples: int64 scalar.
    """

    auc: torch.Tensor
    error_bound: torch.Tensor
    samples: torch.Tensor


@declares(Family("auc", "AUC"))
class BinnedAUC(CheckedMetric):
    """Area under the ROC curve from counts of positives and negatives by logit, exact up to ``bins`` distinct logits.

    With more distinct logits, bins of neighbouring floating-point numbers are counted together: those that differ in
    their last b bits only, for the least b with which all logits seen, on all ranks, fill at most ``bins`` bins. The
    width of a bin is relative to its logits, so neither their scale nor their place matters, and the result depends on
    neither the order of samples nor the number of ranks. A positive and a negative of one bin count one half, as a tie
    does, so the error is at most half the share of such pairs; `compute` returns that bound, 0 where the AUC is exact.
    For ten million normal logits of any standard deviation it is below 2e-5 with the default.

    A bound above 0.001 is logged as a warning. Above 0.05 the AUC is not known, so it is nan, which early stopping
    never takes for a gain.

    Args:
        bins: how many, at least 2; the state has three int64 a bin, and twice as many rows while samples arrive.
    """

    higher_is_better = True
    scores_name = "logits"
    counts: list[torch.Tensor]
    merged_bits: torch.Tensor

    def __init__(self, bins: int = 1 << 17) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins = {bins}: must be at least 2")
        self.bins = bins
        self.add_state("counts", [], dist_reduce_fx="cat")  # rows: key, negatives, positives
        self.add_state("merged_bits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        # Never without a tensor: all ranks gather, even one that had no batch.
        self.counts = [torch.zeros(0, 3, dtype=torch.int64, device=self.device)]

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch.

        Args:
            logits: float ``[B]``.
            labels: ``[B]``, 0 or 1.

        Raises:
            ValueError: shapes differ or a label is neither 0 nor 1.
            FloatingPointError: logits that are not finite (on a GPU: at `compute`).
        """
        self.check_predictions(logits, labels)
        positive = labels.long()
        self.counts.append(torch.stack([_ordered_keys(logits), 1 - positive, positive], dim=1))
        if sum(map(len, self.counts)) > 2 * self.bins:
            merged, self.merged_bits = _merge_bins(torch.cat(self.counts), self.merged_bits, self.bins)
            self.counts = [merged]

    def compute(self) -> AUC:
        """Return the area over everything counted, on all ranks."""
        self.raise_if_refused()
        merged, merged_bits = _merge_bins(dim_zero_cat(self.counts), self.merged_bits, self.bins)
        negatives, positives = merged[:, 1:].double().unbind(1)
        pairs = positives.sum() * negatives.sum()
        same_bin = (positives * negatives).sum() / pairs
        below = negatives.cumsum(0) - negatives
        bound = same_bin / 2 * (merged_bits > 0)
        auc = (positives * below).sum() / pairs + same_bin / 2
        if bound > LOOSE:
            logger.warning(
                "AUC is known only to within ± %.4f: %d bins hold logits of too different scales; %s",
                bound, self.bins, "it is left undefined" if bound > UNDEFINED else "GAUC is exact",
            )  # fmt: skip
        return AUC(torch.where(bound > UNDEFINED, torch.nan, auc), bound, merged[:, 1:].sum())


def _ordered_keys(values: torch.Tensor) -> torch.Tensor:
    """Integers in the order of floating-point numbers, equal where they are: int64 ``[B]``."""
    bits = (values.double() + 0.0).view(torch.int64)  # + 0.0: of the two zeros, the positive one
    return bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)


def _merge_bins(rows: torch.Tensor, merged_bits: torch.Tensor, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows ``[n, 3]`` with the last bits of their keys cleared, one row a key, at most ``bins``, in order of key.

    Args:
        rows: key, negatives, positives.
        merged_bits: how many bits are cleared already.
        bins: at least 2.

    Returns:
        The rows, and how many bits are cleared now: the least number that suffices, at least ``merged_bits``.
    """
    keys, bin_of_row = torch.unique(rows[:, 0] >> merged_bits << merged_bits, return_inverse=True)
    counts = rows.new_zeros(len(keys), 2).index_add_(0, bin_of_row, rows[:, 1:])
    if len(keys) > bins:
        # Two neighbours fall together once all bits up to the highest in which they differ are cleared.
        differ = _bit_length(keys[1:] ^ keys[:-1])
        merged_bits = differ.topk(bins).values[-1]
        return _merge_bins(torch.cat([keys[:, None], counts], dim=1), merged_bits, bins)
    return torch.cat([keys[:, None], counts], dim=1), merged_bits


def _bit_length(values: torch.Tensor) -> torch.Tensor:
    """Bits up to the highest that is set, of int64 taken as unsigned. Halves of 32 bits are exact as float64."""
    high, low = (values >> 32) & 0xFFFFFFFF, values & 0xFFFFFFFF
    bits = torch.frexp(torch.where(high > 0, high, low).double()).exponent
    return bits.long() + 32 * (high > 0)


SAMPLE_METRICS: list[type[CheckedMetric]] = []
M = TypeVar("M", bound=type[CheckedMetric])


def over_samples(metric: M) -> M:
    """Add a metric class to those by which click-through rate models are evaluated, overall and by frequency.

    The class declares one family, is updated with logits and labels ``[B]``, and computes a scalar.
    """
    SAMPLE_METRICS.append(metric)
    return metric


@over_samples
@declares(Family("logloss", "log loss", higher_is_better=False))
class LogLoss(CheckedMetric):
    """Mean binary cross-entropy of logits, in nats, summed in float64."""

    higher_is_better = False
    scores_name = "logits"
    total: torch.Tensor
    samples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            logits: float ``[B]``.
            labels: ``[B]``, 0 or 1.

        Raises:
            ValueError: shapes differ or a label is neither 0 nor 1.
            FloatingPointError: logits that are not finite (on a GPU: at `compute`).
        """
        self.check_predictions(logits, labels)
        self.total += F.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="sum")
        self.samples += len(logits)

    def compute(self) -> torch.Tensor:
        """Return a float64 scalar; nan when there are no samples."""
        self.raise_if_refused()
        return self.total / self.samples
