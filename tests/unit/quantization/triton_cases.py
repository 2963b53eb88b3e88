"""Vectors, codebooks and the float64 formula for tests of the Triton kernels; on CUDA where there is a GPU."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@st.composite
def searches(draw: st.DrawFn, exact: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """``x [N, d]`` and ``codebook [v, d]``, float32.

    Args:
        exact: small multiples of 1/4, of which float32 computes every score without rounding, with ties and equal
            codes; else normal numbers.
    """
    sizes = (draw(st.integers(1, 36)), draw(st.integers(1, 70)))  # up to three blocks of the interpreter in each
    dim = 4 * draw(st.sampled_from([1, 2, 3, 4, 5, 9, 16, 24]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    if not exact:
        x, codebook = (torch.randn(size, dim, generator=random) for size in sizes)
        return x.to(DEVICE), codebook.to(DEVICE)
    x, codebook = (torch.randint(-4, 5, (size, dim), generator=random) / 4 for size in sizes)
    if draw(st.booleans()):  # copies of a few codes, in any order
        codebook = codebook[torch.randint(0, min(3, sizes[1]), (sizes[1],), generator=random)]
    if draw(st.booleans()):  # vectors that are codes
        x = codebook[torch.randint(0, sizes[1], (sizes[0],), generator=random)]
    return x.to(DEVICE), codebook.to(DEVICE)


def distances(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Squared distances ``[N, v]`` in float64."""
    return (x.double()[:, None, :] - codebook.double()[None, :, :]).square().sum(dim=2)


def nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The lowest index of the least distance."""
    squares = distances(x, codebook)
    return (squares == squares.amin(dim=1, keepdim=True)).int().argmax(dim=1)
