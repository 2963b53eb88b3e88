"""The dense gradient of looked-up rows, whose memory is kept, against that of `torch.nn.functional.embedding`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.embeddings.cpu_lookups import DirectLookUp
from cove_dist.embeddings.kept_gradient import LookUpWithKeptGradient

ROWS, DIM = 50, 8


def test_the_kept_gradient_is_that_of_an_embedding_bit_for_bit_at_every_step() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(ROWS * DIM, generator=generator).requires_grad_()
    reference = weights.detach().clone().requires_grad_()
    memory: set[int] = set()
    for batches in (1, 2, 1):  # several batches accumulate
        weights.grad = reference.grad = None
        for _ in range(batches):
            ids = torch.randint(ROWS // 5, (40,), generator=generator)
            factors = torch.randn(40, DIM, generator=generator)
            rows = LookUpWithKeptGradient.apply(weights, ids, DIM)
            expected = F.embedding(ids, reference.view(ROWS, DIM))
            assert torch.equal(rows, expected)
            (rows * factors).sum().backward()
            (expected * factors).sum().backward()
        assert weights.grad is not None
        torch.testing.assert_close(weights.grad, reference.grad, rtol=0, atol=0 if batches == 1 else 1e-6)
        memory.add(weights.grad.data_ptr())
    assert len(memory) == 1


def test_a_direct_look_up_leaves_out_features_without_a_table() -> None:
    weights = torch.arange(6 * 2.0)
    tables = [
        SimpleNamespace(feature_names=["user"], num_embeddings=2),
        SimpleNamespace(feature_names=["item"], num_embeddings=4),
    ]
    group: Any = SimpleNamespace(
        emb_module=SimpleNamespace(weights=weights, embedding_specs=[(2, 2), (4, 2)]),
        config=SimpleNamespace(embedding_tables=tables),
    )
    features = KeyedJaggedTensor(
        ["user", "list", "item"], torch.tensor([1, 77, 3, 0]), lengths=torch.tensor([1, 0, 0, 1, 0, 2])
    )
    found = DirectLookUp(group, LookUpWithKeptGradient)(features).wait()
    assert {name: (each.values().tolist(), each.lengths().tolist()) for name, each in found.items()} == {
        "user": ([[2.0, 3.0]], [1, 0]),
        "item": ([[10.0, 11.0], [4.0, 5.0]], [0, 2]),
    }
