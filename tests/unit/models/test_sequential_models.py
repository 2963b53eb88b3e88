"""What must hold for every model of lists."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cove_dist.models.layers.buckets import Buckets
from cove_dist.models.sequential.bert4rec import BERT4Rec
from cove_dist.models.sequential.car import CAR
from cove_dist.models.sequential.caser import Caser
from cove_dist.models.sequential.fans import FANS
from cove_dist.models.sequential.gru4rec import GRU4Rec
from cove_dist.models.sequential.sasrec import SASRec
from tests.unit.models.lists import HEADS, D, batch, ready

CAUSAL = {
    "sasrec": lambda: SASRec(D, 5, 5, num_layers=2, num_heads=HEADS),
    "gru4rec": lambda: GRU4Rec(D, 5, 5, num_layers=2, hidden_dim=6),
    "caser": lambda: Caser(D, 5, 5, horizontal_filters=3, vertical_filters=2),
    "car": lambda: CAR(D, 5, 5, num_layers=2, num_heads=HEADS),
}
ATTENTIVE = {
    "sasrec": CAUSAL["sasrec"],
    "car": CAUSAL["car"],
    "bert4rec": lambda: BERT4Rec(D, 5, 5, num_layers=2, num_heads=HEADS),
    "fans": lambda: FANS(D, 10, 4, num_layers=2, num_heads=HEADS),
}
ALL = CAUSAL | ATTENTIVE


def run(model: nn.Module, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BERT4Rec with its second item masked, FANS with as many targets as given items, of which the first is known."""
    if isinstance(model, BERT4Rec):
        masked = torch.zeros_like(mask)
        masked[:, 1] = True
        return model(items, mask, masked)
    if isinstance(model, FANS):
        targets, first = items[:, :4], torch.arange(4) < 1
        return model(items, mask, 4, targets, first.expand(len(mask), -1), mask[:, :4])
    return model(items, mask)


@pytest.mark.parametrize("name", CAUSAL)
def test_no_hidden_state_sees_a_later_item(name: str) -> None:
    model = ready(CAUSAL[name]())
    items, mask = batch([9, 6], slots=9)
    before = model(items, mask)
    for t in range(6):
        changed = items.clone()
        changed[:, t] *= -1
        after = model(changed, mask)
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t] - before[:, t]).abs().min(dim=1).values.max() > 1e-6


@pytest.mark.parametrize("name", ALL)
def test_a_sequence_depends_on_neither_padding_nor_other_sequences(name: str) -> None:
    model = ready(ALL[name]())
    lengths = [9, 4, 2, 6, 5] * 15  # of several buckets
    items, mask = batch(lengths, slots=10)
    together = run(model, items, mask)
    for b in (0, 1, 2, 74):
        alone = run(model, items[b : b + 1, : max(4, lengths[b])], mask[b : b + 1, : max(4, lengths[b])])
        torch.testing.assert_close(together[b, : alone.shape[1]], alone[0])
        assert (together[b, lengths[b] :] == 0).all()
    torch.testing.assert_close(run(model, torch.where(mask.unsqueeze(2), items, 1e3), mask), together)


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    model = ALL[name]().train()
    items, mask = batch([9, 4, 2, 0], slots=9)
    items = items.float().requires_grad_()
    hidden = run(model, items, mask)
    (hidden * torch.randn(hidden.shape)).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, key
    assert items.grad.isfinite().all()
    assert (items.grad[~mask] == 0).all()


@pytest.mark.parametrize("name", ATTENTIVE)
def test_attention_weights_are_dropped_only_in_training(name: str) -> None:
    def build(dropout: float) -> nn.Module:
        torch.manual_seed(0)
        model = type(ATTENTIVE[name]())
        return model(D, 10, 10, num_heads=HEADS, dropout=0.0, attention_dropout=dropout).double()

    items, mask = batch([9, 4], slots=9)
    plain = run(build(0.0).train(), items, mask)
    torch.testing.assert_close(run(build(0.5).eval(), items, mask), plain)
    assert (run(build(0.5).train(), items, mask) - plain).abs().max() > 1e-6


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_gives_the_states_and_gradients_of_float32_up_to_rounding(name: str) -> None:
    torch.manual_seed(0)
    model = ALL[name]().eval()
    items, mask = batch([9, 4, 7], slots=9)
    items = items.float().requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            hidden = run(model, items, mask).float()
        weights = torch.arange(hidden.numel()).sin().view_as(hidden)
        (gradient,) = torch.autograd.grad((hidden * weights).sum(), items)
        results.append((hidden.detach(), gradient))
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", ATTENTIVE)
def test_heads_must_divide_the_dimension(name: str) -> None:
    with pytest.raises(ValueError, match=r"num_heads = 3: must divide the embedding dimension 8; allowed: 1, 2, 4, 8"):
        type(ATTENTIVE[name]())(D, 5, 5, num_heads=3)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_a_list_longer_than_the_model_is_refused(name: str) -> None:
    items, mask = batch([40], slots=40)
    with pytest.raises(ValueError, match=r"a sequence has 4\d positions but the model has 1\d: "):
        run(ALL[name]().double(), items, mask)


def test_buckets_keep_every_item_and_little_padding() -> None:
    mask = torch.rand(70, 9, generator=torch.Generator().manual_seed(0)) < 0.4  # with holes
    mask[3] = False
    values = torch.arange(70 * 9.0).view(70, 9, 1)
    buckets = Buckets(mask, sequences_per_bucket=16)
    rows = buckets.flatten(values)
    assert torch.equal(buckets.unflatten(rows), values * mask.unsqueeze(2))
    assert sum(b for b, _ in buckets.shapes) == 70
    assert len(rows) == sum(b * t for b, t in buckets.shapes) < 0.75 * mask.numel()
    assert torch.equal(buckets.join(buckets.split(rows)), rows)
    for part, bucket_mask in zip(buckets.split(rows), buckets.masks, strict=True):
        for i, row in enumerate(part[..., 0]):
            inside = row if bucket_mask is None else row[bucket_mask[i]]
            which = int(row[0]) // 9
            assert inside.tolist() == (mask[which].nonzero().squeeze(1) + which * 9).tolist()
