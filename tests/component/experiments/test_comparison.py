"""Which runs share a table, and what the table says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cove_dist.allowed_packages import ALLOWED
from cove_dist.commands.compare import run as compare
from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import all_metrics, load_metrics
from cove_dist.experiments.comparison import compare_runs
from cove_dist.experiments.grid import cells_of
from cove_dist.experiments.results import collect
from cove_dist.runs import save_config
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from data_pipeline.json_files import to_json, write_json
from tests.checkpoints import write_checkpoint
from tests.component.experiments.grids import small_grid, write_cell
from tests.component.own_metric import write_metric
from tests.configurations import ctr_protocol, evaluated, small_run

PROVENANCE = ["seed", "checkpoint", "run folder"]  # the last rows of a table


def run_of(folder: Path, auc: float, *overrides: str, speed: float | None = 1000.0, **fields: Any) -> str:
    """An evaluated run as training and evaluation leave it."""
    folder.mkdir()
    save_config(load_run_config(small_run(Path("data"), folder, *overrides))[1], folder)
    write_json(folder / "summary.json", {"samples_per_second": speed})
    evaluated({"auc": auc, "users": 40, "auc/item_q1": 0.5, "gauc": None}, **fields).save(folder)
    return str(folder)


def checkpoint(folder: Path, step: int, auc: float) -> None:
    write_checkpoint(folder / "checkpoints", step, {"auc": auc})


def test_runs_that_differ_in_their_seed_share_a_column(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / f"seed{seed}", 0.7 + seed / 10, f"seed={seed}") for seed in (0, 1)]
    runs.append(run_of(tmp_path / "dcn", 0.9, "model=dcn", speed=None))
    table = compare_runs(runs, "test", "best").table()
    assert table.title == "test split, best checkpoints; ranking per user"
    assert table.header == ("metric", "DeepFM", "DCN")
    names = [row[0] for row in table.rows]
    assert [name for name in names if not name.startswith("model.")] == ["auc", "samples/s", *PROVENANCE]
    assert table.rows[0][1:] == ("0.7500 ± 0.0707", "0.9000")
    assert table.rows[names.index("seed")][1:] == ("0\n1", "0")
    assert table.rows[1][1:] == ("1,000 ± 0", "missing"), "a run of a single step has no speed"
    assert table.rows[names.index("checkpoint")][1] == "step_00000002\nstep_00000002"
    assert table.notes == ()


def test_the_settings_that_differ_stand_below_the_metrics(tmp_path: Path) -> None:
    changes: dict[str, tuple[str, ...]] = {
        "base": (),
        "wide": ("embeddings.dim=16", "model.hidden_units=[4,4]"),
        "cove": ("quantizer=cove", "quantizer.user_levels=[4,2]", "quantizer.item_levels=null"),
        "side": ("quantizer=cove_items", "quantizer.item_levels=[4]", "quantizer.alpha=0", "quantizer.beta=0"),
    }
    runs = [run_of(tmp_path / name, 0.7, *overrides) for name, overrides in changes.items()]
    table = compare_runs(runs, "test", "best").table()
    assert table.header[1:] == ("DeepFM", "DeepFM", "COVE-DeepFM", "DeepFM"), "codes beside the model change nothing"
    rows = {row[0]: row[1:] for row in table.rows}
    hidden = "[4, 4]"
    assert rows["model.hidden_units"][1] == hidden != rows["model.hidden_units"][0]
    assert rows["quantizer.user_levels"] == ("null", "null", "[4, 2]", "null")
    assert rows["quantizer.alpha"] == ("1.0", "1.0", "1.0", "0")
    assert "trainer.batch_size" not in rows, "it is the same for all"


def test_equal_runs_have_no_settings_to_tell(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / f"seed{seed}", 0.7, f"seed={seed}") for seed in (0, 1)]
    names = [row[0] for row in compare_runs(runs, "test", "best").table().rows]
    assert names == ["auc", "samples/s", *PROVENANCE]


def test_two_runs_of_one_seed_are_not_taken_for_two_seeds(tmp_path: Path) -> None:
    a, b = (run_of(tmp_path / name, 0.7, "seed=3") for name in "ab")
    c = run_of(tmp_path / "c", 0.8, "seed=4")
    assert compare_runs([a, c], "test", "best").notes == []
    assert compare_runs([a, b, c], "test", "best").notes == [
        f"{a} and {b} have the same settings and seed 3: the deviation is not over seeds alone."
    ]


@pytest.mark.parametrize("runs", ["[{0}/a,{0}/b]", "[{0}/a,'{0}/b*']"])
def test_a_run_that_is_not_there_is_not_left_out_silently(tmp_path: Path, runs: str) -> None:
    run_of(tmp_path / "a", 0.7)
    with pytest.raises(ConfigError, match=r"/b\*?'\]: no such folder"):
        compare([f"runs={runs.format(tmp_path)}"])


def test_a_folder_may_have_brackets_and_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, table = run_of(tmp_path / "[x]", 0.7), tmp_path / "table.json"
    compare([f"runs=['{folder}','{folder}/']", f"json={table}"])
    [record] = json.loads(table.read_text())["records"]
    assert record["run folders"] == [folder]
    assert record["values"]["auc"] == [0.7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "beef"}, "data of the split: f00 in a; beef in b"),
        ({"protocol": ctr_protocol() | {"task": "cf"}}, "task: ctr in a; cf in b"),
        ({"protocol": ctr_protocol(group_by="request_id")}, "group_by: user_id in a; request_id in b"),
        ({"protocol": ctr_protocol(exclude_seen=True)}, "exclude_seen: False in a; True in b"),
    ],
)
def test_metrics_that_mean_different_things_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [run_of(Path("a"), 0.7), run_of(Path("b"), 0.8, **fields)]
    with pytest.raises(ConfigError, match=rf"cannot share a table, .*:\n  {message}$"):
        compare_runs(runs, "test", "best")


def test_other_k_or_another_choice_of_the_best_are_said(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", 0.7)
    b = run_of(tmp_path / "b", 0.8, "seed=1", best_by="gauc", protocol=ctr_protocol([1]))
    notes = compare_runs([a, b], "test", "best").notes
    assert notes == [
        f"Differs between the runs: ndcg_at: [1, 5, 10] in {a}; [1] in {b}.",
        f"Differs between the runs: best checkpoint by: auc in {a}; gauc in {b}.",
    ]


@pytest.mark.parametrize(("split", "kind"), [("validation", "best"), ("test", "newest")])
def test_only_the_split_and_checkpoint_asked_for_are_read(tmp_path: Path, split: str, kind: str) -> None:
    a = run_of(tmp_path / "a", 0.7)
    command = rf"cove evaluate run={a} split={split} checkpoint={kind}"
    with pytest.raises(
        ConfigError, match=rf"metrics_{split}_{kind}\.json: no such file; evaluate the run first: .*{command}"
    ):
        compare_runs([a], split, kind)


@pytest.mark.parametrize(("kind", "best_by"), [("best", "auc"), ("newest", None)])
def test_metrics_of_a_checkpoint_that_training_left_behind_are_refused(
    tmp_path: Path, kind: str, best_by: str | None
) -> None:
    a = run_of(tmp_path / "a", 0.7, kind=kind, best_by=best_by)
    checkpoint(tmp_path / "a", 2, 0.7)
    compare_runs([a], "test", kind)
    checkpoint(tmp_path / "a", 4, 0.8)
    with pytest.raises(ConfigError, match=rf"are of step_00000002, but step_00000004 is the {kind} checkpoint now"):
        compare_runs([a], "test", kind)


def run_by_own_metric(folder: Path, name: str) -> str:
    """A run whose best checkpoint is by a metric of its own, whose class is not imported yet."""
    run_of(folder, 0.7, best_by=name)
    overrides = small_run(Path("data"), folder, f"metric={name}", f"trainer.early_stopping.metric={name}")
    save_config(compose_run_config(overrides), folder)
    evaluated({"auc": 0.7, "auc_error": 0.001, name: 0.3, f"{name}/item_q1": 0.4}, best_by=name).save(folder)
    for step, value in ((2, 0.3), (4, 0.4)):  # less is better
        write_checkpoint(folder / "checkpoints", step, {name: value})
    return str(folder)


def test_metrics_that_the_runs_declare_are_compared_in_their_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metric(tmp_path, monkeypatch, "gap_of_comparison")
    comparison = compare_runs([run_by_own_metric(tmp_path / "a", "gap_of_comparison")], "test", "best")
    assert comparison.records[0]["values"] == {"auc": [0.7], "gap_of_comparison": [0.3], "samples/s": [1000.0]}
    assert comparison.notes == []


def test_metrics_that_no_imported_class_declares_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_metric(tmp_path, monkeypatch, "unknown_gap")
    folder = run_by_own_metric(tmp_path / "a", "unknown_gap")
    monkeypatch.setenv(ALLOWED, "")
    comparison = compare_runs([folder], "test", "best")
    assert comparison.records[0]["values"] == {"auc": [0.7], "samples/s": [1000.0]}
    [note] = comparison.notes
    assert note.startswith(f"{folder}: left out unknown_gap, which are not known: evaluation.metrics.unknown_gap")
    assert "add allow_targets=[module_of_unknown_gap]" in note
    assert "Cannot check that metrics are of the best checkpoint: metric = unknown_gap: no such metric" in caplog.text
    config = OmegaConf.load(tmp_path / "a" / "config.yaml")
    del config.evaluation.metrics.unknown_gap
    save_config(config, tmp_path / "a")
    assert compare_runs([folder], "test", "best").notes[0].endswith("no class in its configuration declares them now.")


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [("trainer.optimizer.learning_rate", 0.1, 0.001), ("trainer.schedule.name", "constant", "linear")],
)
def test_a_run_that_learns_otherwise_since_a_change_is_none_of_the_seeds_of_another(
    tmp_path: Path, key: str, old: Any, new: Any
) -> None:
    runs = [run_of(tmp_path / f"seed{seed}", 0.7, f"seed={seed}") for seed in (0, 1)]
    changes = [(key, old, new), ("trainer.epochs", 1, 2)]
    records = [{"step": 10, "time": "now", "key": k, "old": o, "new": n} for k, o, n in changes]
    (tmp_path / "seed1" / "config_history.jsonl").write_text("".join(to_json(record) + "\n" for record in records))
    comparison = compare_runs(runs, "test", "best")
    assert len(comparison.records) == 2
    assert comparison.notes == [f"{runs[1]} changed during training: {key} {old} -> {new} at step 10."]


def test_metrics_next_to_a_damaged_checkpoint_are_compared_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_of(tmp_path / "a", 0.7)
    checkpoint(tmp_path / "a", 2, 0.7)
    (tmp_path / "a" / "checkpoints" / "step_00000002" / "manifest.json").unlink()
    assert compare_runs([str(tmp_path / "a")], "test", "best").records
    assert "Cannot check that metrics are of the best checkpoint" in caplog.text


def test_a_baseline_without_checkpoints_is_compared_with_runs(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", 0.7)
    floor = run_of(tmp_path / "floor", 0.5, "model=dcn", kind=None, checkpoint=None, step=None, best_by=None)
    table = compare_runs([a, floor], "test", "best").table()
    assert ("checkpoint", "step_00000002", "none") in table.rows


def test_a_metrics_file_reads_as_it_was_written_and_holds_json(tmp_path: Path) -> None:
    found = evaluated({"auc": 0.5, "users": 40, "gauc": None})
    path = found.save(tmp_path)
    assert path.name == "metrics_test_best.json"
    assert load_metrics(tmp_path, "test", "best") == found
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["metrics"] == {
        "auc": 0.5,
        "users": 40,
        "gauc": None,
    }
    assert found.defined() == {"auc": 0.5, "users": 40}


def test_a_file_of_an_earlier_version_is_refused_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics_test.json").write_text('{"split": "test", "auc": 0.5}')
    with pytest.raises(ConfigError, match=r"metrics_test\.json: not a metrics file \(kind: .*evaluate the run again"):
        load_metrics(tmp_path, "test", "best")
    assert all_metrics(tmp_path) == []
    assert "not a metrics file" in caplog.text


def test_a_grid_refuses_cells_of_different_data_and_takes_the_checkpoint_that_it_evaluates(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "only=['deepfm/none']", "seeds=[0,1]")
    first, second = cells_of(grid)
    write_cell(first, {"auc": 0.7})
    write_cell(second, {"auc": 0.8})
    assert len(collect(cells_of(grid), grid)) == 2
    evaluated({"auc": 0.9}, data="beef").save(second.folder)
    with pytest.raises(ConfigError, match=r"data of the split: f00 in deepfm/none/seed_0; beef in deepfm/none/seed_1"):
        collect(cells_of(grid), grid)
    newest = small_grid(tmp_path, "only=['deepfm/none']", "seeds=[0,1]", 'evaluate=["checkpoint=newest"]')
    assert len(collect(cells_of(newest), newest)) == 0
    evaluated({"auc": 0.6}, kind="newest", best_by=None).save(first.folder)
    assert collect(cells_of(newest), newest).to_pylist()[0]["value"] == 0.6


def test_the_composed_configuration_is_not_needed_in_full(tmp_path: Path) -> None:
    """A baseline's has what names the model alone."""
    a, deepfm = run_of(tmp_path / "a", 0.7), run_of(tmp_path / "deepfm", 0.8)
    names = {"model": {"_target_": "popularity.Popularity"}, "quantizer": {"user_levels": None, "item_levels": None}}
    save_config(OmegaConf.create(names), tmp_path / "a")
    table = compare_runs([a, deepfm], "test", "best").table()
    assert table.header == ("metric", "Popularity", "DeepFM")
    assert not [row[0] for row in table.rows if row[0].startswith("trainer.")], "the baseline has no trainer"
