"""Cells of grids on disk: whether what is there is what the grid describes, and how it was evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest

from cove_dist.config_folders import OWN_FOLDERS
from cove_dist.errors import ConfigError
from cove_dist.experiments import cells as cells_module
from cove_dist.experiments.cells import compute, is_stale
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import GridConfig, cells_of, load_grid
from tests.component.experiments.grids import small_grid, write_cell
from tests.configurations import evaluated


def test_a_finished_cell_of_another_configuration(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    cell = cells_of(grid)[0]
    write_cell(cell, {"auc": 0.7})
    assert not is_stale(cell, grid)
    wider = small_grid(tmp_path, 'models.deepfm=["model=deepfm","model.dropout=0.5"]')
    with pytest.raises(ConfigError, match=r"seed_0: holds a run of another.*: model\.dropout: 0\.1 there, 0\.5 here"):
        is_stale(cells_of(wider)[0], wider)
    assert is_stale(cells_of(wider)[0], small_grid(tmp_path, "changed=retrain"))


def test_a_key_that_the_program_has_learned_since_is_no_change(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    cell = cells_of(grid)[0]
    write_cell(cell, {"auc": 0.7})
    config = cell.folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "warmup_steps" not in line))
    assert not is_stale(cell, grid)
    set_by_grid = small_grid(tmp_path, 'models.deepfm=["model=deepfm","trainer.warmup_steps=0"]')
    with pytest.raises(ConfigError, match=r"trainer\.warmup_steps: None there, 0 here"):
        is_stale(cells_of(set_by_grid)[0], set_by_grid)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ("", '"loss=focal"', r"loss\._target_: None there, cove_dist\.losses\.ctr\.\w+ here"),
        ('"loss=focal"', "", r"loss\._target_: cove_dist\.losses\.ctr\.\w+ there, None here"),
        ('"+embeddings.pooling.tags=max"', "", r"embeddings\.pooling\.tags: max there, None here"),
    ],
)
def test_sections_that_one_of_two_configurations_lacks_are_a_change(
    tmp_path: Path, there: str, here: str, message: str
) -> None:
    old, new = (small_grid(tmp_path, f'models.deepfm=["model=deepfm"{each and ","}{each}]') for each in (there, here))
    write_cell(cells_of(old)[0], {"auc": 0.7})
    assert not is_stale(cells_of(old)[0], old)
    with pytest.raises(ConfigError, match=message):
        is_stale(cells_of(new)[0], new)


def test_settings_of_a_model_in_no_yaml_file_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the YAML file of a model leaves out an argument, it is the constructor's default (0.1)."""
    monkeypatch.setenv(OWN_FOLDERS, str(tmp_path / "groups"))
    mine = tmp_path / "groups" / "model" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("_target_: cove_dist.models.ctr.deepfm.DeepFM\nhidden_units: [8]\n")
    given = small_grid(tmp_path, 'models.deepfm=["model=mine","+model.dropout=0.5"]')
    write_cell(cells_of(given)[0], {"auc": 0.7})
    assert not is_stale(cells_of(given)[0], given)
    left_out = small_grid(tmp_path, 'models.deepfm=["model=mine"]')
    with pytest.raises(ConfigError, match=r"configuration: model\.dropout: 0\.5 there, 0\.1 here\. Give"):
        is_stale(cells_of(left_out)[0], left_out)
    write_cell(cells_of(left_out)[0], {"auc": 0.7})
    mine.write_text(mine.read_text() + "dropout: 0.1\n")
    assert not is_stale(cells_of(left_out)[0], left_out), "a key that says what was so before"
    mine.write_text(mine.read_text().replace("0.1", "0.3"))
    with pytest.raises(ConfigError, match=r"configuration: model\.dropout: 0\.1 there, 0\.3 here\. Give"):
        is_stale(cells_of(left_out)[0], left_out)


def test_a_run_that_learned_with_other_settings_for_a_time_is_another_one(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    cell = cells_of(grid)[0]
    write_cell(cell, {"auc": 0.7})
    records = [
        {"step": 4, "time": "t", "key": key, "old": old, "new": new}
        for key, old, new in (("trainer.epochs", 2, 3), ("trainer.optimizer.learning_rate", 0.5, 0.001))
    ]
    history = cell.folder / "config_history.jsonl"
    history.write_text(json.dumps(records[0]) + "\n")
    assert not is_stale(cell, grid), "more epochs than were planned first"
    history.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ConfigError, match=r"trainer\.optimizer\.learning_rate: 0\.5 there until step 4\."):
        is_stale(cell, grid)


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("trainer.timeout_seconds=77", False),
        ("trainer.workers=3", False),
        ("trainer.log_every=7", False),
        ("trainer.on_disk_full=warn", False),
        ("trainer.evaluation_batch_size=99", False),
        ("trainer.checkpoint.every_steps=5", False),
        ("quantizer.warn_perplexity=0.3", False),
        ("trainer.compile=true", True),
        ("trainer.precision=bfloat16", True),
        ("trainer.epochs=9", True),
    ],
)
def test_only_settings_that_can_change_a_metric_make_another_run(tmp_path: Path, setting: str, changed: bool) -> None:
    grid = small_grid(tmp_path, "quantizers.none=['quantizer=cove']")
    write_cell(cells_of(grid)[0], {"auc": 0.7})
    other = small_grid(tmp_path, "changed=retrain", f"quantizers.none=['quantizer=cove','{setting}']")
    assert is_stale(cells_of(other)[0], other) == changed


def test_an_evaluation_that_the_task_lacks_is_refused_before_training(tmp_path: Path) -> None:
    grid = load_grid(file_arguments("grid", ["table5_aotm", "evaluate=['by_frequency=true']"]))
    with pytest.raises(ConfigError, match=r"bert4rec/none/seed_0: by_frequency = true: .* have no metrics"):
        is_stale(cells_of(grid)[0], grid)


def test_cells_that_were_evaluated_otherwise_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = []

    def run(name: str, arguments: list[str], *_: object, **__: object) -> int:
        assert name == "evaluate"
        evaluations.append(arguments[3:])
        return 0

    monkeypatch.setattr(cells_module, "run_program", run)

    def evaluated_with(*arguments: str, again: bool = False) -> GridConfig:
        return small_grid(tmp_path, f"evaluate={list(arguments)}", f"reevaluate={json.dumps(again)}")

    cell = cells_of(evaluated_with())[0]
    write_cell(cell, {"auc": 0.7})
    assert not is_stale(cell, evaluated_with("save_predictions=true")), "a run of an earlier version does not say"
    compute(cell, evaluated_with("save_predictions=true", again=True), Event())
    record = json.loads((cell.folder / "cell.json").read_text())
    assert (record["state"], record["evaluated"]) == ("finished", {"best": {"test": ["save_predictions=true"]}})
    assert record["seconds"] >= 12.5
    for same in (["by_frequency=true", "save_predictions=true"], ["save_predictions=true", "batch_size=9"]):
        assert not is_stale(cell, evaluated_with(*same)), "of a click-through rate model, by_frequency is the default"
    other = r"was evaluated with \['save_predictions=true'\], the grid has \['by_frequency=false'\]: give ree"
    with pytest.raises(ConfigError, match=other):
        is_stale(cell, evaluated_with("by_frequency=false"))
    again = evaluated_with("by_frequency=false", again=True)
    assert not is_stale(cell, again)
    compute(cell, again, Event())
    assert not is_stale(cell, evaluated_with("by_frequency=false"))
    assert evaluations == [["save_predictions=true"], ["by_frequency=false"]]


def test_a_split_keeps_the_arguments_by_which_it_was_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: str, arguments: list[str], *__: object, **___: object) -> int:
        run, split = (each.partition("=")[2] for each in arguments[:2])
        evaluated({"auc": 0.6}, split=split).save(Path(run))
        return 0

    monkeypatch.setattr(cells_module, "run_program", run)

    def grid_of(splits: str, argument: str) -> GridConfig:
        return small_grid(tmp_path, f"splits=[{splits}]", f"evaluate=['{argument}']")

    both = grid_of("validation,test", "by_frequency=false")
    cell = cells_of(both)[0]
    write_cell(cell, {"auc": 0.7})
    record = cell.folder / "cell.json"
    record.write_text(json.dumps({"state": "finished", "evaluated": {"best": ["save_predictions=true"]}}))
    other = r"split test was evaluated with \['save_predictions=true'\], the grid has \['by_frequency=false'\]"
    with pytest.raises(ConfigError, match=other):
        is_stale(cell, both)  # before the validation split is evaluated
    compute(cell, both, Event())
    recorded = {"test": ["save_predictions=true"], "validation": ["by_frequency=false"]}
    assert json.loads(record.read_text())["evaluated"] == {"best": recorded}
    with pytest.raises(ConfigError, match=other):
        is_stale(cell, both)
    assert not is_stale(cell, grid_of("validation", "by_frequency=false"))
    assert not is_stale(cell, grid_of("test", "save_predictions=true"))


def test_a_finished_cell_keeps_what_is_refused_for_a_new_run(tmp_path: Path) -> None:
    late = 'quantizers.none=["quantizer=cove","quantizer.start=kmeans","quantizer.kmeans_step=3"{}]'
    grid = small_grid(tmp_path, late.format(""))
    cell = cells_of(grid)[0]
    with pytest.raises(ConfigError, match=r"deepfm/none/seed_0: quantizer\.kmeans_batches = 10: "):
        is_stale(cell, grid)
    write_cell(cells_of(small_grid(tmp_path, late.format(',"quantizer.kmeans_batches=3"')))[0], {"auc": 0.7})
    config = cell.folder / "config.yaml"
    config.write_text(config.read_text().replace("kmeans_batches: 3", "kmeans_batches: 10"))
    assert not is_stale(cell, grid)
    wider = small_grid(tmp_path, "changed=retrain", late.format(',"quantizer.beta=0.5"'))
    with pytest.raises(ConfigError, match=r"deepfm/none/seed_0: quantizer\.kmeans_batches = 10: "):
        is_stale(cells_of(wider)[0], wider)
    assert config.is_file(), "the new run is refused before the old one is removed"


def test_a_wrong_override_names_the_cell(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, 'models.dlrm=["model=dlrm","model.dropout=7"]')
    with pytest.raises(ConfigError, match=r"dlrm/none/seed_0: model\.dropout = 7"):
        is_stale(cells_of(grid)[2], grid)
