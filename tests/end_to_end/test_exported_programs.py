"""Every model, exported by torch.export and as ONNX: the scores of the file are those of the run."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import cove_dist as cove
from cove_dist.config_folders import options
from cove_dist.inference.programs import write_programs
from cove_dist.tasks.inference import ContextFeatures, Inference, Ragged
from tests.clicks_with_lists import prepare_clicks
from tests.end_to_end.exported_runs import OPTIONS, inference

CTR = ("dcn", "deepfm", "dlrm", "fibinet", "finalmlp")
ON_LISTS = (*CTR, "din")
CF = ("bprmf", "cfkg", "lightgcn", "neumf")
SEQUENTIAL = ("bert4rec", "car", "caser", "fans", "gru4rec", "sasrec")
QUANTIZED = ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]")
ITEMS_QUANTIZED = ("quantizer=cove_items", "quantizer.item_levels=[12,4]")
SEED = 1


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared clicks with a further id column and a dense one."""
    folder, draw = tmp_path_factory.mktemp("clicks"), np.random.default_rng(SEED)
    with (folder / "log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "clicked", "device", "price"])
        for device, price in zip(draw.integers(2, size=600), draw.random(600), strict=True):
            rows.writerow([draw.integers(20), draw.integers(30), draw.integers(2), "ab"[device], price])
    columns = {"user": "user", "item": "item", "label": "clicked", "categorical": ["device"], "dense": ["price"]}
    return cove.prepare(folder / "log.csv", folder / "data", settings=columns)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_clicks(tmp_path_factory.mktemp("lists"))


def written(model: Inference, data: Path, folder: Path, form: Any, precision: Any = "float32") -> dict[str, Any]:
    """The program files by name, each as a function from arrays to an array."""
    name = model.config.model.name
    session = SimpleNamespace(inference=model, data=data, config=SimpleNamespace(model=SimpleNamespace(name=name)))
    folder.mkdir()
    facts = write_programs(session, folder, form, precision)  # type: ignore[arg-type]
    about = json.loads((folder / "model.json").read_text())
    names = list(about["inputs"])
    found = {}
    for file in facts["files"]:  # type: ignore[attr-defined]
        if form == "torch":
            module = torch.export.load(folder / file).module()
            found[file] = lambda *x, module=module: module(*map(torch.from_numpy, x)).detach().numpy()
        else:
            session = onnxruntime.InferenceSession(folder / file)
            taken = {each.name for each in session.get_inputs()}
            found[file] = lambda *x, session=session, taken=taken: session.run(
                None, {name: each for name, each in zip(names, x, strict=True) if name in taken}
            )[0]
    return found


AS_ONNX = ("deepfm", "neumf", "sasrec", "fans")  # a conversion takes 3 s; every export compares what it wrote
UNITS = {
    "dlrm": ("model.hidden_units=[8]", "model.bottom_units=[8]"),
    "finalmlp": ("model.hidden_units=[8]", "model.num_heads=2", "model.gate_units=[8]"),
}


def cases(names: Sequence[str]) -> pytest.MarkDecorator:
    """A test of each model in each form."""
    pairs = [(name, "torch") for name in names] + [(name, "onnx") for name in names if name in AS_ONNX]
    return pytest.mark.parametrize(("name", "form"), pairs)


@cases(CTR)
def test_click_probabilities(name: str, form: str, clicks: Path, tmp_path: Path) -> None:
    model = inference(clicks, f"model={name}", *UNITS.get(name, ("model.hidden_units=[8]",)), *QUANTIZED)
    draw, rows = np.random.default_rng(SEED), 40
    users, items = (draw.integers(model.schema.entity(role).num_seen, size=rows) for role in ("user", "item"))
    device, price = draw.integers(2, size=rows), draw.random(rows).astype(np.float32)
    expected = model.score(users, items, ContextFeatures({"device": device}, {"price": price}))
    [run] = written(model, clicks, tmp_path / "out", form).values()
    ids = {"user_id": users, "item_id": items, "device": device}
    columns = [column["name"] for column in json.loads((tmp_path / "out" / "model.json").read_text())["ids"]]
    scores = run(np.stack([ids[column] for column in columns], axis=1), price[:, None])
    assert scores == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.01


@cases(ON_LISTS)
def test_click_probabilities_of_rows_with_lists(name: str, form: str, lists: Path, tmp_path: Path) -> None:
    """Quantized, so that the items of a list have the fused vectors of the table."""
    pooling = () if name == "din" else ("embeddings.pooling.default=max",)
    units = UNITS.get(name, ("model.hidden_units=[8]",))
    model = inference(lists, f"model={name}", *units, *pooling, *QUANTIZED)
    draw, rows = np.random.default_rng(SEED), 40
    columns = {column.name: column for column in model.schema.categorical}
    ids = {name: draw.integers(column.num_seen, size=rows) for name, column in columns.items() if not column.sequence}
    lengths = {
        name: draw.integers(column.max_length + 1, size=rows) for name, column in columns.items() if column.sequence
    }
    slots = {name: draw.integers(columns[name].num_rows, size=(rows, columns[name].max_length)) for name in lengths}
    given = {
        name: Ragged(each[np.arange(each.shape[1]) < lengths[name][:, None]], lengths[name])
        for name, each in slots.items()
    }
    price = draw.random(rows).astype(np.float32)
    context = ContextFeatures({"device": ids["device"]}, {"price": price}, given)
    expected = model.score(ids["user_id"], ids["item_id"], context)
    [run] = written(model, lists, tmp_path / "out", form).values()
    padded = np.concatenate([*slots.values()], axis=1)
    inputs = np.stack([*ids.values()], axis=1), price[:, None], padded, np.stack([*lengths.values()], axis=1)
    assert run(*inputs) == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.01
    about = json.loads((tmp_path / "out" / "model.json").read_text())["inputs"]
    assert about["lists"]["meaning"].startswith("genres (3 slots), before (4 slots)")


@cases(CF)
def test_scores_of_pairs(name: str, form: str, interactions: Path, tmp_path: Path) -> None:
    quantized = ITEMS_QUANTIZED if name == "bprmf" else ()
    model = inference(interactions, f"model={name}", *quantized)
    draw = np.random.default_rng(SEED)
    users, items = (draw.integers(model.schema.entity(role).num_seen, size=50) for role in ("user", "item"))
    expected = model.score(users, items)
    [run] = written(model, interactions, tmp_path / "out", form).values()
    assert run(np.stack([users, items], axis=1)) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert expected.std() > 0.01


@cases(SEQUENTIAL)
def test_scores_of_all_items_as_the_next(name: str, form: str, prepared_lists: Path, tmp_path: Path) -> None:
    more = ITEMS_QUANTIZED if name in ("sasrec", "fans") else ()
    if name == "fans":
        more += ("sequential.two_stage=true",)
    model = inference(prepared_lists, f"model={name}", *OPTIONS.get(name, ()), *more)
    inputs, count = model.programs()["model"].inputs, model.schema.entity("item").num_seen
    slots = inputs["items"].example.shape[1]
    draw = np.random.default_rng(SEED)
    lengths = np.array([1, slots, 2, slots - 1])
    items = draw.integers(count, size=(4, slots))  # values behind a sequence are ignored
    sequences = [row[:length] for row, length in zip(items, lengths, strict=True)]
    owner = () if "owner" not in inputs else (np.arange(4),)
    owners = owner[0] if owner else None
    listed = model._recommend(sequences, owners, count, left_out=None)
    found = written(model, prepared_lists, tmp_path / "out", form)
    run = found.pop(next(file for file in found if file.startswith("model.")))
    scores = run(items, lengths, *owner)
    for row in range(4):
        ranked = listed.items[row] >= 0
        assert scores[row, listed.items[row][ranked]] == pytest.approx(listed.scores[row][ranked], rel=1e-5, abs=1e-5)
        assert np.isneginf(np.delete(scores[row], listed.items[row][ranked])).all()
    [alone] = run(items[:1], lengths[:1], *(each[:1] for each in owner))
    assert alone == pytest.approx(scores[0], rel=1e-5, abs=1e-5)
    assert len(found) == (name != "fans")
    for query in found.values():
        products = query(items, lengths, *owner) @ model.item_keys().T
        assert products == pytest.approx(scores, rel=1e-4, abs=1e-4)


def test_every_model_is_exported_here() -> None:
    assert set(options("model")) == {*ON_LISTS, *CF, *SEQUENTIAL}
