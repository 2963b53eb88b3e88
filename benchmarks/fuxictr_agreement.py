"""Our cross network, SENET, bilinear interactions and bilinear fusion compared with FuxiCTR's, with the same weights.

Runs in FuxiCTR's environment (see ``fuxictr_ctr.py``), from the root of the checkout::

    PYTHONPATH=. fuxictr/bin/python benchmarks/fuxictr_agreement.py

Prints, for each layer, the largest difference over the largest output, in single precision; fails above 1e-5.
"""

from __future__ import annotations

import torch
from fuxictr.pytorch.layers import BilinearInteraction, BilinearInteractionV2, CrossNet, SqueezeExcitation
from fuxictr_models import InteractionAggregation

from cove_dist.models.ctr import dcn, fibinet, finalmlp

TOLERANCE = 1e-5
Pair = tuple[torch.Tensor, torch.Tensor]  # our output and FuxiCTR's


def cross_network(rows: int = 1000, width: int = 128, layers: int = 3) -> Pair:
    ours, theirs = dcn.CrossNetwork(width, layers), CrossNet(width, layers)
    for index, layer in enumerate(theirs.cross_net):
        ours.weight[index] = layer.weight.weight[0]
        ours.bias[index] = layer.bias.normal_()
    x = torch.randn(rows, width)
    return ours(x), theirs(x)


def senet(rows: int = 1000, fields: int = 5, dim: int = 64, ratio: int = 2) -> Pair:
    ours, theirs = fibinet.SENET(fields, ratio), SqueezeExcitation(fields, ratio)
    ours.squeeze.weight.copy_(theirs.excitation[0].weight)
    ours.excite.weight.copy_(theirs.excitation[2].weight)
    x = torch.randn(rows, fields, dim)
    return ours(x), theirs(x)


def bilinear(kind: str, layer: type, rows: int = 1000, fields: int = 5, dim: int = 64) -> Pair:
    ours, theirs = fibinet.BilinearInteraction(fields, dim, kind), layer(fields, dim, f"field_{kind}")
    ours.weight.copy_(theirs.bilinear_W.view(-1, dim, dim)[: len(ours.weight)])
    x = torch.randn(rows, fields, dim)
    return ours(x), theirs(x)


def fusion(rows: int = 200, width: int = 1000, heads: int = 10) -> Pair:
    ours, theirs = finalmlp.BilinearFusion(width, width, heads), InteractionAggregation(width, heads)
    first, second = theirs.linears
    ours.linear_1.weight.copy_(first.weight)
    ours.linear_1.bias.copy_(first.bias + second.bias)
    ours.weight_2.copy_(second.weight[0])
    ours.matrices.copy_(theirs.weight.view_as(ours.matrices))
    x, y = torch.randn(2, rows, width)
    return ours(x, y), theirs(x, y).squeeze(1)


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    pairs = {"cross network": cross_network(), "SENET": senet(), "fusion": fusion()}
    for layer in (BilinearInteraction, BilinearInteractionV2):
        pairs |= {f"{layer.__name__}, {kind}": bilinear(kind, layer) for kind in ("all", "each", "interaction")}
    differences = {name: ((a - b).abs().max() / b.abs().max()).item() for name, (a, b) in pairs.items()}
    for name, difference in differences.items():
        print(f"{name:35} {difference:.1e}")
    if max(differences.values()) > TOLERANCE:
        raise SystemExit(f"a difference above {TOLERANCE}")


if __name__ == "__main__":
    main()
