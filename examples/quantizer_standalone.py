"""The quantizer of COVE on the embeddings of any module; it needs torch and nothing else.

python examples/quantizer_standalone.py
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.quantization import CascadedQuantizer


def main(steps: int = 200) -> float:
    """Quantize embeddings that have 8 clusters; return the share of pairs of equal clusters that have equal codes."""
    torch.manual_seed(0)
    clusters = torch.arange(400) % 8
    targets = torch.randn(8, 16)[clusters]
    table = nn.Embedding(400, 16)
    quantizer = CascadedQuantizer(dim=16, levels=(32, 8), init_std=0.1)
    optimizer = torch.optim.Adam([*table.parameters(), *quantizer.parameters()], lr=0.05)
    for _ in range(steps):
        out = quantizer(table.weight)  # out.fused [400, 16], out.codes [400, 2], out.loss
        loss = (out.fused - targets).square().mean() + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    codes = quantizer.eval()(table.weight).codes[:, -1]
    same = clusters[:, None] == clusters
    agreement = (codes[:, None] == codes)[same].float().mean().item()
    print(f"loss {loss.item():.4f}; ids of one cluster share their coarse code in {agreement:.0%} of pairs")
    return agreement


if __name__ == "__main__":
    main()
