"""All results of a grid as one tidy table: a row per cell, split and metric.

What the metrics are of, which is the same for all rows of a split, is in the metadata of the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cove_dist.evaluation.metrics_files import Evaluated, check_comparable, load_metrics
from cove_dist.experiments.cells import RECORD, is_finished
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.report.run_folder import load_run
from cove_dist.runs import read_json
from data_pipeline.files import replaced_file

RESULTS_FILE = "results.parquet"
SPEED = "samples/s"  # of training, in addition to the metrics of a run
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("quantizer", pa.string()),
        ("seed", pa.int64()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("epochs", pa.int64()),  # trained
        ("best_epoch", pa.int64()),  # by the early-stopping metric of the validation split
        ("seconds", pa.float64()),  # of training and evaluation, start-up included, over all attempts
        ("samples_per_second", pa.float64()),  # of training
    ]
)


_DESCRIBED = "described"  # metadata of the table: by split, the words and notes of `Results.described`, as JSON


def collect(cells: Sequence[Cell], grid: GridConfig) -> pa.Table:
    """Return the finished cells' results. Cells that are not finished have no rows.

    Raises:
        ConfigError: The metrics of cells mean different things, by protocol or data.
    """
    evaluated = {split: _evaluated(cells, grid, split) for split in grid.splits}
    described = {split: _described(of_split, grid, split) for split, of_split in evaluated.items() if of_split}
    finished = [cell for cell in cells if cell.name in evaluated[grid.splits[0]]]
    rows = [row for cell in finished for row in _rows(cell, {s: evaluated[s][cell.name] for s in grid.splits})]
    return pa.Table.from_pylist(rows, SCHEMA.with_metadata({_DESCRIBED: json.dumps(described)}))


def load_results(path: Path, cells: Sequence[Cell]) -> pa.Table:
    """Read the results of cells whose folders need not be there any more."""
    table = pq.read_table(path)
    wanted = {(cell.model, cell.quantizer, cell.seed) for cell in cells}
    rows = zip(*(table[key].to_pylist() for key in ("model", "quantizer", "seed")), strict=True)
    return table.filter(pa.array([row in wanted for row in rows], pa.bool_()))


def _described(evaluated: Mapping[str, Evaluated], grid: GridConfig, split: str) -> tuple[str, list[str]]:
    notes = check_comparable(evaluated)
    protocol = next(found.protocol["words"] for found in evaluated.values())
    return f"{split} split, {grid.checkpoint} checkpoints; {protocol}", notes


def _evaluated(cells: Sequence[Cell], grid: GridConfig, split: str) -> dict[str, Evaluated]:
    """Return the metrics of the finished cells, by the name of the cell."""
    finished = (cell for cell in cells if is_finished(cell, grid))
    return {cell.name: load_metrics(cell.folder, split, grid.checkpoint) for cell in finished}


def _rows(cell: Cell, evaluated: Mapping[str, Evaluated]) -> Iterator[dict[str, Any]]:
    run = load_run(cell.folder)
    best = run.best_validation()
    of_cell = {
        "model": cell.model,
        "quantizer": cell.quantizer,
        "seed": cell.seed,
        "epochs": run.summary["epoch"],
        "best_epoch": None if best is None else best["epoch"],
        "seconds": read_json(cell.folder / RECORD).get("seconds"),
        "samples_per_second": run.summary["samples_per_second"],
    }
    for split, found in evaluated.items():
        for metric, value in found.defined().items():
            yield of_cell | {"split": split, "metric": metric, "value": value}


def write_results(table: pa.Table, path: Path) -> None:
    with replaced_file(path) as file:
        pq.write_table(table, file, compression="zstd")


@dataclass(frozen=True)
class Results:
    """The tidy table, asked by name.

    Attributes:
        values: By split, model, quantizer and metric: the value of each seed.
        described: By split: what the metrics are of (split, checkpoint and protocol), the same for all cells; and notes
            on what differs between cells that may share a table, as `check_comparable` gives them.
    """

    values: dict[tuple[str, str, str, str], dict[int, float]]
    described: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.Table) -> Results:
        values: dict[tuple[str, str, str, str], dict[int, float]] = {}
        for row in table.to_pylist():
            key = (row["split"], row["model"], row["quantizer"], row["metric"])
            values.setdefault(key, {})[row["seed"]] = row["value"]
        metadata = table.schema.metadata or {}
        described = json.loads(metadata.get(_DESCRIBED.encode(), b"{}"))
        return cls(values, {split: (words, notes) for split, (words, notes) in described.items()})

    def of_seeds(self, split: str, model: str, quantizer: str, metric: str) -> dict[int, float]:
        """Return values by seed; empty if there are none."""
        return self.values.get((split, model, quantizer, metric), {})

    def has(self, cell: Cell) -> bool:
        """Return whether there are results of a cell."""
        pair = (cell.model, cell.quantizer)
        return any(key[1:3] == pair and cell.seed in seeds for key, seeds in self.values.items())


def seeds_of_both(old: Mapping[int, float], new: Mapping[int, float]) -> list[int]:
    """Return the seeds for which both values by seed are defined, in order."""
    return sorted(seed for seed in old.keys() & new.keys() if not math.isnan(old[seed] + new[seed]))
