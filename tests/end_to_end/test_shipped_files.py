"""Every shipped grid and search is composed, cell by cell and pair by pair."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from cove_dist.config_folders import config_folder
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import GridConfig, cells_of, load_grid
from cove_dist.experiments.search import load_search, sampled
from cove_dist.experiments.studies import PairStudy
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of

GRIDS = sorted(path.stem for path in (config_folder() / "grid").glob("*.yaml"))
SEARCHES = sorted(path.stem for path in (config_folder() / "search").glob("*.yaml"))


@cache
def shipped(name: str) -> GridConfig:
    return load_grid([*file_arguments("grid", [name]), "tuned=null"])


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_of_every_shipped_grid_is_composed(name: str) -> None:
    grid = shipped(name)
    cells = cells_of(grid)
    assert len(cells) == len(grid.pairs()) * len(grid.seeds)
    assert len({cell.folder for cell in cells}) == len(cells)
    for cell in cells:
        if cell.seed == grid.seeds[0]:  # the others differ in the seed alone
            config, _ = load_run_config(cell.overrides)
            assert config.output == str(cell.folder)
            for split in grid.splits:
                assert {metric.split("/")[0] for metric in grid.metrics} <= set(
                    task_of(config).metric_names(config, split)
                )


@pytest.mark.parametrize("name", GRIDS)
def test_the_papers_values_are_of_models_quantizers_and_metrics_of_the_grid(name: str) -> None:
    grid = shipped(name)
    for published in (grid.paper.values, grid.paper.gains):
        for model, by_quantizer in published.items():
            assert model in grid.models
            for quantizer, by_metric in by_quantizer.items():
                assert quantizer in grid.quantizers
                assert set(by_metric) <= set(grid.metrics)


@pytest.mark.parametrize("name", GRIDS)
def test_the_papers_published_gains_agree_with_its_values(name: str) -> None:
    """Up to the rounding of the published values."""
    paper, base = shipped(name).paper, shipped(name).base
    for model, by_quantizer in paper.gains.items():
        for quantizer, by_metric in by_quantizer.items():
            for metric, gain in by_metric.items():
                old, new = paper.value(model, base, metric), paper.value(model, quantizer, metric)
                assert gain == pytest.approx(100 * (new - old) / old, abs=0.02), (model, metric)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_shipped_search_asks_for_configurations_that_are_composed(name: str, tmp_path: Path) -> None:
    search = load_search([*file_arguments("search", [name]), f"output={tmp_path}"])
    storage = InMemoryStorage()
    for model, quantizer in search.pairs():
        study = PairStudy(search, model, quantizer, storage)
        assert study.defaults.keys() == study.parameters.keys(), "trial 0 is the settings without a search"
        study.ask()
        found = sampled(study.parameters, study.ask().params)
        load_run_config([*search.fixed(model, quantizer), *found])
