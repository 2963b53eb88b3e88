"""Every example, in this process."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pytest

import cove_dist as cove
from cove_dist import cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds the examples; the variables that one of them sets end with the test."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("COVE_CONFIG_DIR", "COVE_ALLOW_TARGETS"):
        monkeypatch.setenv(name, "")


def example(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the example of one's own data ran."""
    folder = tmp_path_factory.mktemp("own_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        listed = example("own_data").main(folder)
    assert listed["user"].to_pylist() == ["u1"] * 5 + ["u2"] * 5
    return folder


def test_the_standalone_quantizer_finds_clusters() -> None:
    assert example("quantizer_standalone").main() > 0.9


def test_a_metric_of_ones_own_is_right(own_data: Path) -> None:
    module = example("own_metric")
    labels, scores = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.25, 0.21, 0.9, 0.96])
    assert module.calibration_error(labels, scores) == pytest.approx((0.54 + 0.14) / 4)
    run = cove.load(own_data / "run", device="cpu")
    assert 0 <= module.main(run, csv.read_csv(own_data / "ratings.csv"), "uid", "iid", "stars", 4) < 1


def test_an_exported_model_is_served_with_the_scores_of_the_run(own_data: Path) -> None:
    cli.main(["export", f"run={own_data / 'run'}", "what=[model]", "device=cpu"])
    scores = example("serve_exported").main(own_data / "run" / "model", candidates=40, repeats=3)
    run = cove.load(own_data / "run", device="cpu")
    user, items = run.session.users.original[0].as_py(), run.session.items.original.to_pylist()
    assert scores.numpy() == pytest.approx(run.score([user] * 40, items), abs=1e-6)


def test_an_exported_sequential_model_recommends_as_the_run_does(own_data: Path) -> None:
    columns = {"user": "uid", "item": "iid", "label": None, "time": "ts", "sequences": 5}
    data = cove.prepare(own_data / "ratings.csv", own_data / "sequences", settings=columns)
    small = {**example("own_data").SMALL, "trainer.epochs": 1, "model.num_layers": 1, "model.num_heads": 2}
    run = cove.train(data, "sasrec", "cove_items", own_data / "sequential", {**small, "quantizer.item_levels": [8, 4]})
    cli.main(["export", f"run={run.folder}", "what=[model]", "device=cpu"])
    listed, scores = example("serve_sequences").main(run.folder / "model", [3, 1, 4], k=5)
    originals = run.session.items.decode(np.array([3, 1, 4]))
    expected = run.recommend(sequences=[originals.to_pylist()], k=5)
    assert run.session.items.decode(np.array(listed)).to_pylist() == expected["item"].to_pylist()
    assert scores == pytest.approx(expected["score"].to_pylist(), abs=1e-5)


def test_a_head_of_ones_own_is_trained_and_loaded_by_its_path(tmp_path: Path) -> None:
    run = example("own_head").main(tmp_path)
    assert type(run.session.inference.model.objective.head).__name__ == "Bilinear"


def test_the_notebook_runs_and_finds_the_kinds_of_items() -> None:
    """Its code cells in order, as a kernel would run them."""
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "save the notebook without outputs"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert len(names["codes"]) == 60
    assert sum(sorted(names["counts"].values())[-3:]) > 50  # of 60 items, in the largest code of each kind
    assert names["listed"]["user"].to_pylist() == ["u1"] * 5 + ["nobody"] * 5
    assert all(int(row["item"][1:]) % 3 == 1 for row in names["listed"].to_pylist()[:3])  # of the kind that u1 likes


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f'"{path.stem}"' in tested or f'"{path.name}"' in tested, path
