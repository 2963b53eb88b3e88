"""What a quantizer keeps of a training pass."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.observation import Observation, distinct_vectors


def as_dictionary(vectors: torch.Tensor, counts: torch.Tensor) -> dict[tuple[float, ...], int]:
    keys = [tuple(row.tolist()) for row in vectors]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, counts.tolist(), strict=True))


@given(st.data(), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 3))
def test_without_ids_equal_vectors_are_one(data: st.DataObject, dtype: torch.dtype, dim: int) -> None:
    observations, expected = [], {}
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.integers(0, 12))
        numbers = st.lists(st.sampled_from([-0.0, 0.0, 1.0, -1.0, 1e-30]), min_size=dim, max_size=dim)
        rows = data.draw(st.lists(numbers, min_size=size, max_size=size))
        counted = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=size, max_size=size))
        vectors = torch.tensor(rows, dtype=dtype).view(size, dim)
        observations.append(Observation(vectors, None if counted is None else torch.tensor(counted).long(), None))
        for row, count in zip(vectors, counted or [1] * size, strict=True):
            if count:
                key = tuple(row.add(0.0).tolist())
                expected[key] = expected.get(key, 0) + count
    assert as_dictionary(*distinct_vectors(observations)) == expected


@given(st.data())
def test_of_an_id_the_latest_vector_stays_and_all_occurrences_count(data: st.DataObject) -> None:
    observations, latest, total = [], {}, {}
    for number in range(data.draw(st.integers(1, 3))):
        ids = data.draw(st.lists(st.integers(-3, 3), max_size=8))
        counted = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=len(ids), max_size=len(ids)))
        vectors = torch.tensor([[100.0 * number + i, 0.5] for i in ids]).view(-1, 2)
        counts = None if counted is None else torch.tensor(counted).long()
        observations.append(Observation(vectors, counts, torch.tensor(ids).long()))
        for i, count in zip(ids, counted or [1] * len(ids), strict=True):
            if count:
                latest[i], total[i] = (100.0 * number + i, 0.5), total.get(i, 0) + count
    assert as_dictionary(*distinct_vectors(observations)) == {latest[i]: total[i] for i in latest}


def test_a_training_pass_is_kept_only_where_it_is_wanted() -> None:
    quantizer = CascadedQuantizer(4, (5, 2))
    quantizer(torch.randn(3, 4))
    assert quantizer.observations == []
    quantizer.keep_observations = True
    ids, counts = torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.int32)
    z = torch.randn(2, 3, 4)
    quantizer(z, counts=counts, ids=ids)
    [kept] = quantizer.observations
    assert torch.equal(kept.vectors, z.view(6, 4))
    assert torch.equal(kept.ids, ids.view(6))
    assert torch.equal(kept.counts, counts.view(6).long())
    quantizer.eval()(torch.zeros(3, 4))
    assert quantizer.observations == [kept]
    quantizer.train()(z)
    assert [len(seen.vectors) for seen in quantizer.observations] == [6, 6]
    quantizer.keep_observations = False
    quantizer.train()(z)
    assert quantizer.observations == []


def test_what_is_kept_has_no_graph_and_is_a_copy() -> None:
    """All fields are slices of one looked-up tensor; the embeddings may move before the vectors are used."""
    quantizer, table = CascadedQuantizer(4, (5, 2)), nn.Embedding(10, 40)
    quantizer.keep_observations = True
    looked_up = table(torch.arange(10))
    ids = torch.arange(10)
    quantizer(looked_up[:, 4:8], ids=ids)
    [kept] = quantizer.observations
    assert kept.vectors.grad_fn is None
    assert not kept.vectors.requires_grad
    assert kept.vectors.untyped_storage().nbytes() == 10 * 4 * 4
    before = kept.vectors.clone()
    with torch.no_grad():
        looked_up.zero_()
        ids.zero_()
    assert torch.equal(kept.vectors, before)
    assert kept.ids.tolist() == list(range(10))
