"""The search through `torch.compile`: its compiler takes longer than a unit test may."""

from __future__ import annotations

import torch
from torch._inductor import config

from cove_dist.quantization.search import nearest_code


def test_the_compiled_search_finds_what_the_chunked_one_does() -> None:
    torch.manual_seed(0)
    codebook = torch.randn(400, 4)
    with config.patch(compile_threads=1):  # no processes that import torch to compile one function
        for size in (50, 7):  # one compilation for all sizes
            x = torch.randn(size, 4)
            assert torch.equal(nearest_code(x, codebook, "compiled"), nearest_code(x, codebook, "chunked"))
