"""Compile the Triton kernels for a Hopper GPU, which takes no GPU: the interpreter accepts what the compiler does not.

python -m tests.unit.quantization.compile_kernels        without TRITON_INTERPRET
"""

from __future__ import annotations

import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cove_dist.quantization import triton_scatter, triton_search

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    **dict.fromkeys(("x", "codebook", "half_norms", "largest", "out", "rows"), "*fp32"),
    **dict.fromkeys(("codes", "doubtful", "count", "bounds", "order"), "*i64"),
}
NUMBERS = {"alpha": "fp32", "copy_stride": "i32", "num_rows": "i32", "copies": "i32"} | dict.fromkeys(
    ("num_vectors", "num_codes", "size_class"), "i32"
)


def compile_for_hopper(kernel: Any, constants: dict[str, Any], types: dict[str, str] | None = None) -> str:
    """Machine code of a kernel is made and its PTX returned.

    Args:
        kernel: as its module has it; num_warps and num_stages are those of its autotuning, or of `constants`.
        constants: of its constexpr arguments; of others, 1 where Triton would specialize on it.
        types: where they differ from POINTERS and NUMBERS.
    """
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    constants = {name: value for name, value in constants.items() if name not in options}
    while not hasattr(kernel, "params"):
        kernel = kernel.fn
    names = [parameter.name for parameter in kernel.params]
    known = POINTERS | NUMBERS | (types or {})
    signature = {name: "constexpr" if name in constants else known[name] for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=HOPPER, options=options).asm["ptx"]


def main() -> None:
    small = triton_search.CONFIGS[-1]
    blocks = {**small.kwargs, "num_warps": small.num_warps, "num_stages": small.num_stages, "D": 64, "BLOCK_D": 64}
    ieee = {"PRECISION": "ieee", "DOUBTS": False}
    parts = {"D": 96, "BLOCK_D": 32, "num_codes": 1, "num_vectors": 1}
    assert "mma" not in compile_for_hopper(triton_search._nearest, blocks | ieee)  # no tensor cores
    assert "mma" not in compile_for_hopper(triton_search._nearest, blocks | ieee | parts)
    assert "mma" in compile_for_hopper(triton_search._nearest, blocks | {"PRECISION": "tf32x3", "DOUBTS": True})
    again = triton_search.RANK_AGAIN | {"D": 64, "BLOCK_D": 64}
    assert "f64" in compile_for_hopper(triton_search._rank_again, again, {"half_norms": "*fp64"})
    tile = {"D": 64, "BLOCK_N": triton_scatter.BLOCK_N, "BLOCK_D": 64}
    for gather in (True, False):
        compile_for_hopper(triton_scatter._segments, {**tile, "GATHER": gather, "ADD": not gather})
    assert re.search(r"\b(atom|red)\.global", compile_for_hopper(triton_scatter._atomic, tile))


if __name__ == "__main__":
    main()
