"""The drift check, with the other ranks' hashes mocked."""

from __future__ import annotations

import pytest
import torch

from cove_dist.errors import TrainingError
from cove_dist.training.replicas import check_replicas, fingerprint

WORLD_SIZE = 8


def parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(5, 3, generator=generator) for name in ("head.weight", "quantizers.item.codebooks.0")}


def other_ranks(drifted: dict[int, dict[str, torch.Tensor]]):
    """A gather of 8 ranks that all have `parameters`, but for the drifted ones."""

    def gather(own: torch.Tensor) -> torch.Tensor:
        ranks = [drifted.get(rank, parameters()) for rank in range(WORLD_SIZE)]
        return torch.stack([torch.stack([fingerprint(p) for p in rank.values()]) for rank in ranks])

    return gather


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_a_hash_of_any_type_and_shape_tells_one_changed_element(dtype: torch.dtype) -> None:
    for shape in ((), (3,), (2, 5)):
        zeros = torch.zeros(shape, dtype=dtype)
        changed = zeros.clone()
        changed.view(-1)[-1] = 1
        assert fingerprint(zeros) == fingerprint(zeros.clone()) != fingerprint(changed)


def test_identical_replicas_pass() -> None:
    check_replicas(parameters(), other_ranks({}))


def test_the_smallest_drift_of_one_rank_is_an_error_that_names_parameter_and_rank() -> None:
    drifted = parameters()
    codebook = drifted["quantizers.item.codebooks.0"]
    codebook[2, 1] = torch.nextafter(codebook[2, 1], torch.tensor(10.0))
    with pytest.raises(TrainingError, match=r"quantizers.item.codebooks.0: differs between rank 0 and ranks \[5\]"):
        check_replicas(parameters(), other_ranks({5: drifted}))


def test_swapped_rows_are_drift() -> None:
    tensor = parameters()["head.weight"]
    assert fingerprint(tensor) != fingerprint(tensor[[1, 0, 2, 3, 4]])


def test_a_large_tensor_is_hashed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(50, 3)
    whole = fingerprint(tensor)
    monkeypatch.setattr("cove_dist.training.replicas._PIECE", 7)
    assert fingerprint(tensor) == whole
