"""What counts 0 is as if it were not there, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, CodeClassifier, MaintenanceSettings, kmeans
from tests.unit.quantization.problems import build, problems

GARBAGE = [float("nan"), float("inf"), -float("inf"), 1e30, -3e38, 0.0]
LEARNING = ("gradient", "ema")
EVERYTHING = MaintenanceSettings("kmeans", kmeans_step=1, kmeans_batches=1, revive_every=2)


@pytest.fixture(autouse=True, scope="module")
def few_subspaces() -> Iterator[None]:
    """Let the k-means start cluster in two subspaces instead of ten, which takes most of the time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans, "_SUBSPACES", 2)
        yield


@st.composite
def padded(draw: st.DrawFn) -> dict:
    """A problem, and the same with padding in between: ``present`` marks what is there."""
    problem = draw(problems())
    size = len(problem["z"])
    after = draw(st.lists(st.integers(0, 2), min_size=size + 1, max_size=size + 1).filter(any))
    present = torch.cat([torch.tensor([True] * (i > 0) + [False] * n, dtype=torch.bool) for i, n in enumerate(after)])
    values = draw(st.lists(st.sampled_from(GARBAGE), min_size=len(present), max_size=len(present)))

    def spread(x: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
        return fill.index_copy(0, present.nonzero().flatten(), x)

    garbage = torch.tensor(values, dtype=torch.float64).unsqueeze(1).repeat(1, problem["z"].shape[1])
    counts = torch.tensor(draw(st.lists(st.integers(1, 3), min_size=size, max_size=size)))
    with_padding = {**problem, "z": spread(problem["z"], garbage)}
    with_padding["task_gradient"] = spread(problem["task_gradient"], garbage)  # a later 0 * NaN sends NaN back
    return {
        "bare": {**problem, "counts": counts},
        "padded": {**with_padding, "counts": spread(counts, torch.zeros_like(present, dtype=torch.int64))},
        "present": present,
        "as_mask": draw(st.booleans()),
        "with_ids": draw(st.booleans()),
    }


def train(problem: dict, learning: str, as_mask: bool, ids: torch.Tensor | None) -> dict:
    """Two training passes with everything that `CodebookMaintenance` does, and all that they leave behind."""
    quantizer = build(problem["codebooks"], learning=learning, **problem["arguments"])
    maintenance, left = CodebookMaintenance({"item": quantizer}, EVERYTHING), {}
    counts = problem["counts"].bool() if as_mask else problem["counts"]
    for step in (1, 2):
        z = problem["z"].clone().requires_grad_()
        quantizer.zero_grad()
        fused, codes, loss = quantizer(z, counts=counts, ids=ids)
        (fused * problem["task_gradient"]).sum().add(problem["omega"] * loss).backward()
        left |= {f"fused {step}": fused.detach(), f"codes {step}": codes, f"loss {step}": loss.detach()}
        left |= {f"z {step}": z.grad, f"gradients {step}": [e.grad for e in quantizer.codebooks]}
        left |= {f"usage {step}": quantizer.usage(), f"revived {step}": maintenance.after_step(step)}
        left |= {f"state {step}": {name: value.clone() for name, value in quantizer.state_dict().items()}}
    return left


@given(padded(), st.sampled_from(LEARNING))
def test_padding_is_as_if_it_were_not_there(problem: dict, learning: str) -> None:
    """Values, gradients, usage, moving averages, k-means start and revival."""
    present = problem["present"]
    ids = torch.arange(int(present.sum()))
    all_ids = torch.zeros_like(present, dtype=torch.int64).index_copy(0, present.nonzero().flatten(), ids)
    given_ids = (ids, all_ids) if problem["with_ids"] else (None, None)
    expected = train(problem["bare"], learning, problem["as_mask"], given_ids[0])
    found = train(problem["padded"], learning, problem["as_mask"], given_ids[1])
    for step in (1, 2):
        fused, gradient = found[f"fused {step}"], found[f"z {step}"]
        torch.testing.assert_close(fused[~present], problem["padded"]["z"][~present], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(gradient[~present], torch.zeros_like(gradient[~present]))
        for name in ("fused", "codes", "z"):
            found[f"{name} {step}"] = found[f"{name} {step}"][present]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("learning", LEARNING)
def test_the_codes_of_padding_are_valid_and_do_not_depend_on_what_it_holds(learning: str) -> None:
    quantizer = CascadedQuantizer(4, (6, 3), learning=learning)
    parent = quantizer(quantizer.codebooks[0][:1].detach()).codes[0, 1]
    for value in GARBAGE:
        codes = quantizer(torch.full((2, 4), value), counts=torch.tensor([False, False])).codes
        assert codes.tolist() == [[0, parent]] * 2


@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("size", [0, 5])
def test_nothing_but_padding_has_no_loss_and_changes_nothing(learning: str, size: int) -> None:
    quantizer = CascadedQuantizer(4, (6, 3), learning=learning)
    maintenance = CodebookMaintenance({"item": quantizer}, EVERYTHING)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    z = torch.full((size, 4), float("nan"), requires_grad=True)
    out = quantizer(z, counts=torch.zeros(size, dtype=torch.bool))
    (out.loss + out.fused.square().sum()).backward()
    assert maintenance.after_step(1) == {}
    assert out.loss == 0
    assert not z.grad.any()
    assert out.codes.shape == (size, 2)
    assert not torch.cat(quantizer.usage()).any()
    for codebook in quantizer.codebooks:
        assert (codebook.grad is None) if learning == "ema" else not codebook.grad.any()
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]) == (name != "moving_averages.counts")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.uint8])
def test_padding_of_leading_dimensions_under_lower_precision(dtype: torch.dtype) -> None:
    quantizer, z = CascadedQuantizer(4, (6, 3)).bfloat16(), torch.randn(2, 3, 4, dtype=torch.bfloat16)
    present = torch.tensor([[1, 1, 0], [1, 0, 0]])
    z[present == 0] = float("nan")
    out, bare = quantizer(z, counts=present.to(dtype)), quantizer(z[present == 1])
    assert out.fused.dtype == torch.bfloat16
    assert torch.equal(out.fused[present == 1], bare.fused)
    assert torch.equal(out.codes[present == 1], bare.codes)
    assert torch.equal(out.loss, bare.loss)


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_code_classification_leaves_padding_out(value: float, kind: torch.dtype) -> None:
    classifier = CodeClassifier(5, (7, 3))
    hidden, codes = torch.randn(6, 5), torch.stack([torch.randint(0, 7, (6,)), torch.randint(0, 3, (6,))], dim=1)
    present = torch.tensor([True, False, True, True, False, True])
    gradients = []
    for rows, targets, counts in (
        (hidden[present], codes[present], None),
        (hidden.masked_fill(~present[:, None], value), codes.masked_fill(~present[:, None], -1), present.to(kind)),
    ):
        classifier.zero_grad()
        rows = rows.clone().requires_grad_()
        loss = classifier(rows, targets, counts)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in classifier.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert torch.equal(rows.grad.any(dim=1), present)
