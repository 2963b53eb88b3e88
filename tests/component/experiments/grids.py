"""Small grids, and cells written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import Cell, GridConfig, cells_of, load_grid
from cove_dist.experiments.results import Results, collect
from cove_dist.experiments.search import SearchConfig, load_search
from cove_dist.tasks.configuration import load_run_config
from tests.configurations import COVE, evaluated, small_run

GRID = """# @package _global_
title: Small grid
output: {output}
common: {common}
models:
  deepfm: [model=deepfm]
  dlrm: [model=dlrm]
quantizers:
  none: [quantizer=none]
  cove: {cove}
seeds: [0, 1, 2]
metrics: [auc, logloss]
paper:
  source: Table 9
  values:
    deepfm: {{none: {{auc: 0.50}}, cove: {{auc: 0.60}}}}
    dlrm: {{none: {{auc: 0.50}}}}
  gains:
    deepfm: {{cove: {{auc: 19.5}}}}
"""


def write_grid(folder: Path, prepared: Path | str = "unused") -> Path:
    """A grid file whose cells train for seconds."""
    common = [o for o in small_run(Path(prepared), "unused", "trainer.max_steps=4") if not o.startswith("output=")]
    path = folder / "grids" / "small.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(GRID.format(output=folder / "runs", common=json.dumps(common), cove=json.dumps(COVE)))
    return path


def small_grid(folder: Path, *overrides: str) -> GridConfig:
    return load_grid(file_arguments("grid", [str(write_grid(folder)), *overrides]))


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return load_run_config(overrides)[1]


def write_cell(cell: Cell, metrics: Mapping[str, float], split: str = "test") -> None:
    """What a finished cell leaves."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    config = OmegaConf.merge(_composed(cell.overrides[:-2]), {"seed": cell.seed, "output": str(cell.folder)})
    OmegaConf.save(config, cell.folder / "config.yaml")
    records = [
        {"kind": "validation", "step": e, "epoch": e, "auc": value} for e, value in enumerate((0.6, 0.7, 0.65), 1)
    ]
    (cell.folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (cell.folder / "summary.json").write_text(json.dumps({"epoch": 3, "samples_per_second": 1000.0}))
    (cell.folder / "cell.json").write_text(json.dumps({"state": "finished", "seconds": 12.5}))
    evaluated(metrics, split=split).save(cell.folder)


SEARCH = """# @package _global_
title: Small search
output: {output}
common: {common}
models:
  deepfm: [model=deepfm, {units}]
quantizers:
  none: [quantizer=none]
  cove: {cove}
space:
  all:
    rate:
      keys: [trainer.optimizer.learning_rate, embeddings.optimizer.learning_rate]
      type: float
      low: 0.0001
      high: 0.1
      log: true
    units: {{keys: [model.hidden_units], type: categorical, choices: [[8], [16, 8]]}}
  quantizers:
    cove:
      levels: {{keys: [quantizer.user_levels, quantizer.item_levels], type: categorical, choices: [[8, 3], [6, 2]]}}
      alpha: {{keys: [quantizer.alpha], type: float, low: 0.0, high: 0.9}}
trials: 3
startup_trials: 2
prune_after: 2
"""


def write_search(folder: Path, prepared: Path | str = "unused") -> Path:
    """A search file whose trials train for seconds."""
    common = [o for o in small_run(Path(prepared), "unused") if not o.startswith(("output=", "model."))]
    path = folder / "searches" / "small.yaml"
    path.parent.mkdir(exist_ok=True, parents=True)
    units = '"model.hidden_units=[16,8]"'
    text = SEARCH.format(output=folder / "search", common=json.dumps(common), units=units, cove=json.dumps(COVE))
    path.write_text(text)
    return path


def small_search(folder: Path, *overrides: str) -> SearchConfig:
    return load_search(file_arguments("search", [str(write_search(folder)), *overrides]))


AUC = {  # model/quantizer: by seed; a missing one is a cell that is not finished
    "deepfm/none": [0.70, 0.71, 0.72],
    "deepfm/cove": [0.71, 0.722, 0.731],
    "dlrm/none": [0.70, 0.71, 0.72],
    "dlrm/cove": [0.72],
}


def made(folder: Path, *overrides: str) -> tuple[GridConfig, Results]:
    """A grid of which eleven cells are not all finished."""
    grid = small_grid(folder, *overrides)
    for cell in cells_of(grid):
        values = AUC[f"{cell.model}/{cell.quantizer}"]
        if cell.seed < len(values):
            write_cell(cell, {"auc": values[cell.seed], "logloss": 1 - values[cell.seed], "users": 40})
    return grid, Results.of(collect(cells_of(grid), grid))
