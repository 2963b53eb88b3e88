"""Grid files: every shipped one is composed, cell by cell; wrong ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cove_dist.allowed_packages import ALLOWED
from cove_dist.errors import ConfigError
from cove_dist.experiments.cells import is_stale
from cove_dist.experiments.claims import claims_of
from cove_dist.experiments.common import file_arguments, find_file, merged
from cove_dist.experiments.grid import cells_of, load_grid, tuning_note
from cove_dist.experiments.results import Results, collect
from cove_dist.tasks.configuration import load_run_config
from tests.component.experiments.grids import small_grid, write_cell, write_grid
from tests.component.own_metric import write_metric


def test_cells_come_seed_by_seed_with_their_overrides(tmp_path: Path) -> None:
    cells = cells_of(small_grid(tmp_path))
    assert [cell.name for cell in cells[:5]] == [
        "deepfm/none/seed_0", "deepfm/cove/seed_0", "dlrm/none/seed_0", "dlrm/cove/seed_0", "deepfm/none/seed_1",
    ]  # fmt: skip
    config, _ = load_run_config(cells[3].overrides)
    assert config.model.name == "DLRM"
    assert config.quantizer.levels() == {"user": (8, 3), "item": (12, 4)}
    assert (config.seed, config.output) == (0, f"{tmp_path}/runs/dlrm/cove/seed_0")


def test_only_some_cells(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, 'only=["*/none","dlrm/cove"]')
    assert grid.pairs() == [("deepfm", "none"), ("dlrm", "none"), ("dlrm", "cove")]


def test_tuned_overrides_are_the_last_unless_they_are_of_another_quantizer(tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text(
        "pairs:\n  dlrm:\n    none: {overrides: [model.dropout=0.3]}\n"
        "    cove: {overrides: [model.dropout=0.4, quantizer.alpha=0.5, 'quantizer.user_levels=[5]']}\n"
    )
    grid = small_grid(tmp_path, f"tuned={best}", 'only=["dlrm/*"]', "seeds=[0]", 'common=["data=synthetic"]')
    base, cove = (load_run_config(cell.overrides)[0] for cell in cells_of(grid))
    assert tuple(config.model.arguments["dropout"] for config in (base, cove)) == (0.3, 0.4)
    assert cove.quantizer.alpha == 0.5
    assert cove.quantizer.user_levels == (5,), "as in the trial"
    grid = small_grid(tmp_path, f"tuned={best}", 'only=["dlrm/*"]', "+tuned_as.none=cove")
    assert "model.dropout=0.4" in cells_of(grid)[0].overrides
    swapped = replace(grid, quantizers=grid.quantizers | {"none": ("quantizer.alpha=0.9",)})
    assert "quantizer.alpha=0.9" in cells_of(swapped)[0].overrides, "the quantizer's own"
    patterns = replace(grid, tuned_as={"*": "none", "cove": "cove", "n*": "cove"})
    assert [patterns.tuned_name(name) for name in ("none", "cove")] == ["none", "cove"], (
        "first match; a name before all"
    )
    with pytest.raises(ConfigError, match=r"best\.yaml: has no overrides for deepfm/none; search for them"):
        cells_of(small_grid(tmp_path, f"tuned={best}"))
    with pytest.raises(ConfigError, match=r"tuned = nowhere\.yaml: no such file; make it by cove tune"):
        cells_of(small_grid(tmp_path, "tuned=nowhere.yaml"))


def test_tuned_overrides_of_several_searches(tmp_path: Path) -> None:
    one, two, both = (tmp_path / name for name in ("one.yaml", "two.yaml", "both.yaml"))
    pair = "{overrides: [model.dropout=%s], metric: validation auc, value: 0.7, trials: 3}"
    one.write_text(f"pairs:\n  dlrm: {{none: {pair % 0.3}}}\n")
    two.write_text(f"pairs:\n  deepfm: {{none: {pair % 0.4}}}\n")
    both.write_text(f"pairs:\n  deepfm: {{none: {pair % 0.5}}}\n  dlrm: {{none: {pair % 0.6}}}\n")
    grid = small_grid(tmp_path, f"tuned=[{one},{two}]", 'only=["*/none"]', "seeds=[0]")
    assert {cell.model: cell.overrides[-3] for cell in cells_of(grid)} == {
        "dlrm": "model.dropout=0.3",
        "deepfm": "model.dropout=0.4",
    }
    assert tuning_note(grid) == "Settings tuned by 3 trials each, on validation auc."
    grid = small_grid(tmp_path, f"tuned=[{one},{two}]", "+tuned_as.cove=none")
    assert tuning_note(grid) == (
        "Settings tuned by 3 trials each, on validation auc; not searched, at the settings of none: cove."
    )
    with pytest.raises(ConfigError, match=r"tuned: deepfm/none is in .*two\.yaml and in .*both\.yaml; give one"):
        cells_of(small_grid(tmp_path, f"tuned=[{two},{both}]"))
    both.write_text("pairs: [deepfm]\n")
    with pytest.raises(ConfigError, match=r"both\.yaml: is no file of best settings; cove tune writes"):
        cells_of(small_grid(tmp_path, f"tuned={both}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("base=nothing", "nothing is none of none, cove"),
        ("compare=[[cove,cvoe]]", "cvoe is none of none, cove"),
        ("+tuned_as.nothing=cove", "nothing is none of none, cove"),
        ("seeds=[]", r"seeds = \[\]: needs one or more"),
        ("seeds=[1,1]", r"seeds = \[1, 1\]: needs one or more, all different"),
        ("picture=curve", "varied = None: goes with picture=curve"),
        ("picture=pie", "picture = pie: input should be 'dots' or 'curve'"),
        ('only=["deepfn/*"]', r"only: deepfn/\* is no model/quantizer"),
        ("jobs=0", "jobs = 0: input should be greater than 0"),
        ("+job=2", "job: unknown key"),
        ("job=2", "job: unknown key; did you mean jobs"),
        ('+models.a$b=["model=dlrm"]', r"models = \['a\$b'\]: needs names of letters"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_grid(tmp_path, override)


def test_a_grid_is_found_by_path_or_by_name(tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    found = file_arguments("grid", ["jobs=2", str(path), "~models.dlrm"])
    assert list(load_grid(found).models) == ["deepfm"]
    assert load_grid(found).jobs == 2
    assert find_file("grid", "configs/grid/table4_movielens.yaml") == find_file("grid", "table4_movielens")
    with pytest.raises(ConfigError, match=r"table5: no such file.*grid/ has .*table4_movielens"):
        find_file("grid", "table5")
    with pytest.raises(ConfigError, match="a b: give one file"):
        file_arguments("grid", ["a", "b"])
    path.write_text("common: [a=[1,2]]")
    with pytest.raises(ConfigError, match=r"(?s)small\.yaml: not YAML.*needs quotes"):
        find_file("grid", str(path))
    with pytest.raises(ConfigError, match="title, output, models, quantizers, metrics: not set; give a grid file"):
        load_grid([])


def test_an_override_longer_than_any_file_name_is_an_override() -> None:
    override = f"common=[{','.join(['trainer.epochs=8'] * 100)}]"
    assert file_arguments("grid", [override]) == [override]


def test_of_several_overrides_for_a_key_the_last_counts() -> None:
    assert merged(["a=1", "b=2"], ["a=3"]) == ("a=3", "b=2")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("by_frequncy=true", r"evaluate = \['by_frequncy=true'\]: by_frequncy: unknown key; did you mean by_frequency"),
        ("checkpoint=last", r"checkpoint = last: input should be 'best' or 'newest'"),
        ("split=validation", r"evaluate: split=validation: comes from the grid"),
    ],
)
def test_wrong_arguments_of_the_evaluation_are_refused_at_once(tmp_path: Path, argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_grid(tmp_path, f"evaluate=['{argument}']")


def test_a_metric_that_the_runs_declare_is_known_to_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metric(tmp_path, monkeypatch, "gap_of_grid")
    named = ["metrics=[auc,gap_of_grid]", "by_frequency=[gap_of_grid]"]
    with pytest.raises(ConfigError, match=r"metrics = gap_of_grid: no such metric; .* needs metric=NAME in common"):
        small_grid(tmp_path, *named)
    common = ["data=synthetic", "metric=gap_of_grid", "trainer.early_stopping.metric=gap_of_grid"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError, match=r"deepfm/none: .*allow_targets=\["):
        patch.setenv(ALLOWED, "")
        small_grid(tmp_path, *named, f"common={json.dumps(common)}")
    grid = small_grid(tmp_path, *named, f"common={json.dumps(common)}")
    for number, cell in enumerate(cells_of(grid)[:8]):
        write_cell(cell, {"auc": 0.5, "gap_of_grid": 0.5 + number / 10})
    claims = claims_of(grid, Results.of(collect(cells_of(grid), grid)), "test")
    assert {claim.lower_is_better for claim in claims if claim.metric == "gap_of_grid"} == {True}


def test_a_metric_of_runs_that_are_refused_as_new_ones_is_known_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their cells may be finished; those that are not are refused with their names."""
    write_metric(tmp_path, monkeypatch, "gap_of_earlier_grid")
    common = f"common={json.dumps(['data=synthetic', 'metric=gap_of_earlier_grid'])}"
    late = 'quantizers.none=["quantizer=cove","quantizer.start=kmeans","quantizer.kmeans_step=3"]'
    grid = small_grid(tmp_path, "metrics=[auc,gap_of_earlier_grid]", common, late)
    with pytest.raises(ConfigError, match=r"deepfm/none/seed_0: quantizer\.kmeans_batches = 10: "):
        is_stale(cells_of(grid)[0], grid)
