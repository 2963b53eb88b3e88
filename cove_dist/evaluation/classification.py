"""AUC, and metrics that are means over all samples."""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeVar

import torch
from torch.nn import functional as F
from torchmetrics.utilities.data import dim_zero_cat

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.own import SampleMetric

logger = logging.getLogger(__name__)

LOOSE, UNDEFINED = 1e-3, 0.05  # error bounds of the AUC above which it is warned about, and undefined


class AUC(NamedTuple):
    """Result of `BinnedAUC`.

    Attributes:
        auc: float64 scalar; nan without positives or negatives, or if the bound is above 0.05.
        error_bound: float64 scalar: the exact AUC lies within ``auc ± error_bound``.
        samples: Number of samples, int64 scalar, whatever their weights.
    """

    auc: torch.Tensor
    error_bound: torch.Tensor
    samples: torch.Tensor


@declares(Family("auc", "AUC"))
class BinnedAUC(CheckedMetric):
    """Area under the ROC curve from counts of positives and negatives by logit, exact up to ``bins`` distinct logits.

    With more distinct logits, neighboring floating-point numbers share a bin: those that differ only in their last b
    bits, for the least b with which all logits, on all ranks, fill at most ``bins`` bins. The width of a bin is
    relative to its logits, so their scale does not matter, and the result depends on neither the order of samples nor
    the number of ranks. A positive and a negative in one bin count one half, like a tie, so the error is at most half
    the share of such pairs; `compute` returns that bound, which is 0 if the AUC is exact. For ten million normal logits
    of any standard deviation it is below 2e-5 with the default.

    A bound above 0.001 is logged as a warning. Above 0.05 the AUC is nan, which early stopping never counts as an
    improvement.

    Args:
        bins: Number of bins, at least 2; the state has three numbers per bin, and twice as many rows between merges.
    """

    higher_is_better = True
    scores_name = "logits"
    keys: list[torch.Tensor]
    counts: list[torch.Tensor]
    samples: torch.Tensor
    merged_bits: torch.Tensor

    def __init__(self, bins: int = 1 << 17) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins = {bins}: must be at least 2")
        self.bins = bins
        self.add_state("keys", [], dist_reduce_fx="cat")  # int64, one per bin
        self.add_state("counts", [], dist_reduce_fx="cat")  # float64 [n, 2]: the weight of negatives and of positives
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("merged_bits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")
        self.reset()

    def reset(self) -> None:
        """Reset the metric."""
        super().reset()
        # Always one tensor: all ranks gather, even without a batch.
        self.keys = [torch.zeros(0, dtype=torch.int64, device=self.device)]
        self.counts = [torch.zeros(0, 2, dtype=torch.float64, device=self.device)]

    def update(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Count a batch.

        Args:
            logits: Logits, float ``[B]``.
            labels: Labels ``[B]``, 0 or 1.
            weights: Weights ``[B]``, at least 0, of positives and negatives in the counts; None: 1.

        Raises:
            ValueError: Shapes differ or a label is neither 0 nor 1.
            FloatingPointError: Logits are not finite (on a GPU: raised by `compute`).
        """
        self.check_predictions(logits, labels)
        positive = labels.double()
        counts = torch.stack([1 - positive, positive], dim=1)
        self.keys.append(_ordered_keys(logits))
        self.counts.append(counts if weights is None else counts * weights.double().unsqueeze(1))
        self.samples += len(logits)
        if sum(map(len, self.counts)) > 2 * self.bins:
            keys, counts, self.merged_bits = _merge_bins(
                torch.cat(self.keys), torch.cat(self.counts), self.merged_bits, self.bins
            )
            self.keys, self.counts = [keys], [counts]

    def compute(self) -> AUC:
        """Return the AUC over all samples of all ranks."""
        self.raise_if_refused()
        keys, counts = dim_zero_cat(self.keys), dim_zero_cat(self.counts)
        _, counts, merged_bits = _merge_bins(keys, counts, self.merged_bits, self.bins)
        negatives, positives = counts.unbind(1)
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
        return AUC(torch.where(bound > UNDEFINED, torch.nan, auc), bound, self.samples.clone())


def _ordered_keys(values: torch.Tensor) -> torch.Tensor:
    """Map floating-point numbers to integers of the same order: int64 ``[B]``."""
    bits = (values.double() + 0.0).view(torch.int64)  # + 0.0 turns -0.0 into 0.0
    return bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)


def _merge_bins(
    keys: torch.Tensor, counts: torch.Tensor, merged_bits: torch.Tensor, bins: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clear the last bits of keys and add up the counts of equal keys: at most ``bins`` of them, sorted by key.

    Args:
        keys: int64 ``[n]``.
        counts: Negatives and positives of each key, float64 ``[n, 2]``.
        merged_bits: Number of bits already cleared.
        bins: Maximum number of rows, at least 2.

    Returns:
        Keys, counts, and the number of cleared bits: the least that suffices, at least ``merged_bits``.
    """
    keys, bin_of_row = torch.unique(keys >> merged_bits << merged_bits, return_inverse=True)
    counts = counts.new_zeros(len(keys), 2).index_add_(0, bin_of_row, counts)
    if len(keys) > bins:
        # Two neighbors merge when all bits up to the highest one in which they differ are cleared.
        differ = _bit_length(keys[1:] ^ keys[:-1])
        merged_bits = differ.topk(bins).values[-1]
        return _merge_bins(keys, counts, merged_bits, bins)
    return keys, counts, merged_bits


def _bit_length(values: torch.Tensor) -> torch.Tensor:
    """Return the bit length of int64 read as unsigned. Halves of 32 bits are exact as float64."""
    high, low = (values >> 32) & 0xFFFFFFFF, values & 0xFFFFFFFF
    bits = torch.frexp(torch.where(high > 0, high, low).double()).exponent
    return bits.long() + 32 * (high > 0)


SAMPLE_METRICS: list[type[CheckedMetric]] = []
M = TypeVar("M", bound=type[CheckedMetric])


def over_samples(metric: M) -> M:
    """Register a metric class for the evaluation of click-through rate models, overall and by frequency.

    The class declares one family, is updated with logits and labels ``[B]``, and computes a scalar.
    """
    SAMPLE_METRICS.append(metric)
    return metric


@over_samples
@declares(Family("logloss", "log loss", higher_is_better=False))
class LogLoss(SampleMetric):
    """Mean binary cross-entropy of logits, in nats, summed in float64."""

    higher_is_better = False

    def values(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
