"""Random quantizers and batches for property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer


@st.composite
def problems(draw: st.DrawFn) -> dict:
    """A quantizer's arguments, its codebooks and a batch, in float64. Integers make ties and repeats, exactly."""
    steps = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    levels = [sum(steps[i:]) for i in range(len(steps))]
    if draw(st.booleans()):
        levels[0] += draw(st.sampled_from([50, 390]))  # several tiles, several blocks
    dim, size = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    integers = draw(st.booleans())

    def numbers(*shape: int) -> torch.Tensor:
        if integers:
            return torch.randint(-2, 3, shape, generator=generator).double()
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    z = numbers(size, dim)
    z = z[torch.randint(0, size, (size,), generator=generator)] if draw(st.booleans()) else z
    return {
        "z": z,
        "codebooks": [numbers(v, dim) for v in levels],
        "task_gradient": torch.randn(size, dim, generator=generator, dtype=torch.float64),
        "omega": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "arguments": {
            "alpha": draw(st.sampled_from([0.0, 0.6, 1.0])),
            "beta": draw(st.sampled_from([0.0, 0.25, 1.0])),
            "loss_reduction": draw(st.sampled_from(["mean", "sum"])),
            "cascade": draw(st.sampled_from(["codes", "residual"])),
            "codebook_gradient": draw(st.sampled_from(["task_and_quantization", "quantization"])),
        },
    }


def build(codebooks: list[torch.Tensor], **arguments) -> CascadedQuantizer:
    quantizer = CascadedQuantizer(codebooks[0].shape[1], [len(e) for e in codebooks], **arguments).double()
    with torch.no_grad():
        for parameter, values in zip(quantizer.codebooks, codebooks, strict=True):
            parameter.copy_(values)
    return quantizer
