"""Tensors are made on the device where they are used: every factory says which, and no model mixes devices."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import cove_dist
from cove_dist.config.model_spec import ModelSpec
from cove_dist.faults.finite import _by_device
from cove_dist.models.cf.base import AttributeRecommender, GraphRecommender, Recommender
from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.assignment import Cascade
from cove_dist.quantization.quantizer import Learning
from cove_dist.tasks.unseen import mean_of_codes
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader

PACKAGE = Path(cove_dist.__file__).parent
MODELS = sorted((PACKAGE.parent / "configs/model").glob("*.yaml"))
FACTORIES = {
    *("arange", "as_tensor", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randint"),
    *("randn", "randperm", "tensor", "zeros"),
}
# What a module or metric owns is made on the default device and moves with it, by `to`.
STATES = {"Parameter", "register_buffer", "add_state"}
ROWS, FIELDS, DIM, DENSE, SLOTS = 2, 5, 8, 3, 4


def without_device(source: str) -> Iterator[int]:
    """Yield the lines of tensor factories without a device, except those that make the state of a module or metric."""

    def visit(node: ast.AST, of_state: bool) -> Iterator[int]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, of_torch = node.func.attr, isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
            given = any(keyword.arg in ("device", None) for keyword in node.keywords)
            if of_torch and name in FACTORIES and not given and not of_state:
                yield node.lineno
            of_state = of_state or name in STATES
        for child in ast.iter_child_nodes(node):
            yield from visit(child, of_state)

    yield from visit(ast.parse(source), False)


def test_every_tensor_factory_says_its_device() -> None:
    places = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in without_device(path.read_text())
    ]
    assert places == [], 'give device=, or device="cpu" where the host computes'


def test_a_factory_is_found_unless_its_device_is_given_or_a_module_owns_it() -> None:
    lines = ["a = torch.zeros(2)", "b = torch.zeros(2, device=d)", "self.register_buffer('c', torch.ones(2) - 1)"]
    assert list(without_device("\n".join([*lines, "f(torch.eye(3))"]))) == [1, 4]


def on_meta(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="meta")


def ctr(spec: ModelSpec) -> torch.Tensor:
    head = spec.build(CTRHead, FIELDS, DIM, DENSE).to("meta")
    first_order = (on_meta(ROWS, FIELDS),) if head.uses_first_order else ()
    if not head.attends_to_histories:
        return head(on_meta(ROWS, FIELDS, DIM), on_meta(ROWS, DENSE), *first_order)
    histories = on_meta(ROWS, DIM), on_meta(ROWS, 1, SLOTS, DIM), on_meta(ROWS, 1, SLOTS) > 0
    return head(on_meta(ROWS, FIELDS - 1, DIM), on_meta(ROWS, DENSE), *first_order, *histories)


def cf(spec: ModelSpec) -> torch.Tensor:
    kind = spec.kind_of(Recommender)
    head = spec.build(Recommender, DIM, *((2,) if issubclass(kind, AttributeRecommender) else ())).to_empty(
        device="meta"
    )
    width = kind.rows_per_id * DIM
    users, items = on_meta(ROWS, width), on_meta(ROWS, FIELDS, width)
    if isinstance(head, GraphRecommender):
        users, _ = head.propagate(users, on_meta(ROWS, width), torch.clone, torch.clone)
    scores = head(users, items)
    loss = head.loss(scores[:, 0], scores[:, 1:]).mean() + head.score_all(users, items[0]).sum()
    if isinstance(head, AttributeRecommender):
        loss = loss + head.edge_loss(users, users, users, torch.zeros(ROWS, dtype=torch.int64, device="meta"))
    return loss


def sequential(spec: ModelSpec) -> torch.Tensor:
    model = spec.build(SequentialModel, DIM, SLOTS, SLOTS).to("meta")
    mask = torch.ones(ROWS, SLOTS, dtype=torch.bool, device="meta")
    arguments: dict[str, Any] = {"masked": mask} if model.reads_masked_items else {}
    arguments |= {"owner": on_meta(ROWS, DIM)} if model.reads_owner else {}
    targets = (SLOTS,) if model.decoding == "parallel" else ()
    return model(on_meta(ROWS, SLOTS, DIM), mask, *targets, **arguments)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_keeps_to_the_device_of_its_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = OmegaConf.to_container(OmegaConf.load(path))
    spec = ModelSpec.resolve(section)
    # The meta device, which stands for a GPU here, has no values. What the host reads are the lengths of lists, rising.
    monkeypatch.setattr(torch.Tensor, "tolist", lambda lengths: [SLOTS - 1, SLOTS])
    assert {"ctr": ctr, "cf": cf, "sequential": sequential}[spec.kind.task](spec).is_meta


@pytest.mark.parametrize("cascade", ["codes", "residual"])
@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_a_training_step_of_a_quantizer_reads_no_value_on_the_host(
    learning: Learning, cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has no values: to count distinct ids, or to ask for a number, would raise."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    quantizer = CascadedQuantizer(DIM, (20, 4), learning=learning, cascade=cascade).to("meta")
    z, ids = on_meta(30, DIM).requires_grad_(), torch.zeros(30, dtype=torch.int64, device="meta")
    out = quantizer(z, ids=ids)
    (out.fused.sum() + out.loss).backward()
    assert z.grad is not None and z.grad.is_meta and out.codes.is_meta


def test_a_page_locked_batch_knows_the_lengths_that_a_device_would_be_asked_for(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    loader = build_loader(prepared, Schema.load(prepared), "train", 50)
    batch = next(iter(loader)).pin_memory().to(torch.device("meta"))  # which has no values to ask for
    assert batch.ids.length_per_key() == [len(batch)] * len(batch.ids.keys())


def test_a_model_that_mixes_devices_is_found() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = torch.ones(DIM)

    with pytest.raises(RuntimeError, match="device"):
        _ = Mixing().to("meta").offset + on_meta(DIM)


def test_a_state_on_several_devices_is_checked_device_by_device() -> None:
    """TorchRec's row-wise Adagrad counts its steps on the host, next to moments on the GPU."""
    state = {"momentum": on_meta(3), "step": torch.tensor(2.0), "rows": [torch.ones(2), on_meta(2, 4)]}
    by_device = {device.type: [name for name, _ in parts] for device, parts in _by_device(state).items()}
    assert by_device == {"meta": ["momentum", "rows.1"], "cpu": ["step", "rows.0"]}


def test_codes_are_averaged_where_their_codebook_is() -> None:
    """Counts summed over ranks are on the host."""
    quantizer = CascadedQuantizer(DIM, (4, 2)).to("meta")
    assert mean_of_codes(quantizer, [torch.ones(4), torch.ones(2)]).device.type == "meta"
