"""Exact nearest-code search in a bounded workspace (Eq. 1)."""

from __future__ import annotations

import torch

# A block's minimum comes from a vectorized `amin`, about ten times faster than `argmin` over the same scores. A narrow
# codebook is one block, a multiple of the tile of x86 matrix kernels wide: at a ragged edge these round otherwise, and
# equal codebook rows would get unequal scores.
BLOCK = 64
TILE = 48
NARROW = 8 * TILE
WORKSPACE_CPU = 1 << 20  # scores held at a time; on CPU they should stay in the cache
WORKSPACE_ACCELERATOR = 1 << 26


@torch.no_grad()
def nearest_code(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """``argmin_k ||x_n - e_k||²`` for every row; the lowest index wins a tie.

    Args:
        x: float ``[N, d]``.
        codebook: ``[v, d]``, of the same dtype.

    Returns:
        int64 ``[N]``. The ``[N, v]`` matrix of distances is never held: rows are searched in chunks.
    """
    num_codes = len(codebook)
    block_width = BLOCK if num_codes > NARROW else TILE * -(-num_codes // TILE)
    blocks = -(-num_codes // block_width)
    width = blocks * block_width
    padded = codebook.new_zeros(width, codebook.shape[1])
    padded[:num_codes] = codebook
    # ||x - e||² and ||e||²/2 - x·e have the same minimum; padding can never be it.
    half_norms = codebook.new_full((width,), torch.inf)
    half_norms[:num_codes] = codebook.square().sum(dim=1) / 2

    rows = max(1, (WORKSPACE_CPU if x.device.type == "cpu" else WORKSPACE_ACCELERATOR) // width)
    workspace = x.new_empty(min(rows, len(x)), width)
    first_block = torch.arange(len(workspace), device=x.device) * blocks
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for chunk, out in zip(x.split(rows), codes.split(rows), strict=True):
        scores = torch.addmm(half_norms, chunk, padded.t(), alpha=-1, out=workspace[: len(chunk)])
        if blocks == 1:
            torch.argmin(scores, dim=1, out=out)
            continue
        block = scores.view(-1, blocks, block_width).amin(dim=2).argmin(dim=1)
        within = scores.view(-1, block_width).index_select(0, first_block[: len(chunk)] + block).argmin(dim=1)
        torch.add(within, block, alpha=block_width, out=out)
    return codes
