"""Time of the quantizer's Triton kernels on CUDA: searches next to the bare matmul, sums by code next to `index_add_`.

python benchmarks/triton_kernels.py --vectors 65536 --codes 8000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import get_args

import torch

from cove_dist.quantization.search import nearest_code
from cove_dist.quantization.triton_scatter import Method, add_rows


def kernel_times(vectors: int, codes: int, dim: int = 64, passes: int = 20, device: str = "cuda") -> dict[str, float]:
    """Milliseconds of a pass, by name, after two passes that compile and tune.

    Args:
        vectors: N.
        codes: V; as in training, frequent and rare ones.
        dim: d.
        passes: That are timed together.
        device: Of the tensors; "cpu" with Triton's interpreter shows only that it runs.
    """
    z, codebook = torch.randn(vectors, dim, device=device), torch.randn(codes, dim, device=device)
    scores, sums = z.new_empty(vectors, codes), torch.zeros_like(codebook)
    chosen = nearest_code(z, codebook)
    steps: dict[str, Callable[[], object]] = {
        "bare matmul": partial(torch.mm, z, codebook.t(), out=scores),
        **{f"search {b}": partial(nearest_code, z, codebook, b) for b in ("chunked", "triton", "triton_tf32x3")},
        "index_add_": partial(sums.index_add_, 0, chosen, z),
        **{f"add_rows {m}": partial(add_rows, sums, chosen, z, method=m) for m in get_args(Method)},
    }
    return {name: _milliseconds(step, device, passes) for name, step in steps.items()}


def _milliseconds(step: Callable[[], object], device: str, passes: int) -> float:
    """Mean over passes that follow one another, so that the host's part of one is hidden by the one before."""
    for _ in range(2):
        step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(passes):
        step()
    _wait(device)
    return (time.perf_counter() - start) / passes * 1000


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=65_536)
    parser.add_argument("--codes", type=int, default=8_000)
    parser.add_argument("--dim", type=int, default=64)
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), vars(arguments))
    for name, milliseconds in kernel_times(**vars(arguments)).items():
        print(f"{name:24} {milliseconds:9.3f} ms")


if __name__ == "__main__":
    main()
