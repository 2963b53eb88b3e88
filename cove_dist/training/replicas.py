"""Check that data-parallel parameters are bit-identical on every rank; drift is an error, never a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from cove_dist.distributed import world
from cove_dist.errors import TrainingError

_PIECE = 1 << 20  # elements hashed at a time
_NARROW = {1: torch.int8, 2: torch.int16}  # integers of elements of so many bytes


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """Return an int64 hash of a tensor's bits that depends on the position of every element."""
    integers = _NARROW.get(tensor.element_size(), torch.int32)
    bits = tensor.detach().contiguous().view(-1).view(integers)
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for start in range(0, len(bits), _PIECE):  # limits the memory for copies of large tables
        piece = bits[start : start + _PIECE]
        positions = torch.arange(start, start + len(piece), device=bits.device)
        total += (piece * (positions * 2 + 1)).sum()  # int64 arithmetic wraps
    return total


def gather_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Gather the values ``[n]`` of the ranks as ``[W, n]``."""
    return world().gather(values[None])


def check_replicas(
    parameters: Mapping[str, torch.Tensor],
    gather: Callable[[torch.Tensor], torch.Tensor] = gather_over_ranks,
) -> None:
    """Compare the data-parallel parameters across ranks. Collective.

    Raises:
        TrainingError: A parameter differs; raised on every rank, names it and the ranks that differ from rank 0.
    """
    if not parameters:
        return
    hashes = gather(torch.stack([fingerprint(parameter) for parameter in parameters.values()]))
    differs = hashes != hashes[0]
    if not differs.any():
        return
    column = int(differs.any(dim=0).nonzero()[0])
    ranks = differs[:, column].nonzero().flatten().tolist()
    raise TrainingError(
        f"{list(parameters)[column]}: differs between rank 0 and ranks {ranks}, although it is data-parallel."
        " A rank skipped an update or used another random generator: resume from the newest checkpoint. Or it is a"
        " statistic of each rank's own batches, as in BatchNorm: set track_running_stats=False, or use SyncBatchNorm"
        " on GPUs."
    )
