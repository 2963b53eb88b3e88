"""An experiment, from overrides to run folders, tidy results, tables and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from cove_dist.errors import TrainingError
from cove_dist.experiments.archive import ARCHIVE_FILE, restore, write_archive
from cove_dist.experiments.cells import is_stale
from cove_dist.experiments.grid import Cell, GridConfig, cells_of, load_grid
from cove_dist.experiments.pictures import draw
from cove_dist.experiments.results import RESULTS_FILE, Results, collect, load_results, write_results
from cove_dist.experiments.runner import run_cells
from cove_dist.experiments.tables import means_table, unfinished, write_tables
from cove_dist.experiments.text import TextTable
from data_pipeline.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a program shows at the end.

    Attributes:
        folder: Folder of the results.
        tables: Tables of the means, by split.
        unfinished: The cells that are missing; empty when there are none.
    """

    folder: Path
    tables: list[TextTable]
    unfinished: str


def run_experiment(overrides: Sequence[str], command: str) -> Outcome:
    """Compute the cells that are not finished; write what follows from those that are, tables after each of them.

    Args:
        overrides: Overrides of ``configs/experiment.yaml``.
        command: That makes the same again, to be written with the tables.

    Raises:
        ConfigError: A wrong setting, or a folder that holds a run of another configuration.
        TrainingError: Cells failed. The others are computed, and the tables written.
    """
    grid = load_grid(overrides)
    cells = cells_of(grid)
    if grid.restore:
        restored = restore(cells, grid, grid.results_folder / ARCHIVE_FILE)
        logger.info("%d of %d cells restored from %s", len(restored), len(cells), grid.results_folder / ARCHIVE_FILE)
    stale = {cell.name for cell in cells if is_stale(cell, grid)}
    failures: dict[str, str] = {}
    writing = Lock()

    def write(*, last: bool = True) -> Outcome:
        with writing:
            current = [cell for cell in cells if cell.name not in stale]
            return write_everything(grid, current, command, last=last)

    def write_so_far() -> None:
        try:
            write(last=False)
        except (UserError, OSError) as error:
            logger.warning("tables so far not written: %s", error)  # no reason to lose the other cells

    try:
        if not grid.tables_only:
            failures = run_cells(cells, stale, grid, write_so_far)
    except KeyboardInterrupt:
        write()
        raise
    outcome = write()
    if failures:
        names = ", ".join(sorted(failures))
        raise TrainingError(
            f"{len(failures)} of {len(cells)} cells failed: {names}. See cell.log in their folders under {grid.output};"
            f" the same command tries them again. Tables of the others: {outcome.folder}"
        )
    return outcome


def write_everything(grid: GridConfig, cells: Sequence[Cell], command: str, *, last: bool = True) -> Outcome:
    """Write results and tables of the finished cells; if it is the last time, also records and the grid's pictures.

    Where only tables are requested and no cell is finished here, they are made from the results of an earlier run.
    """
    folder = grid.results_folder
    folder.mkdir(parents=True, exist_ok=True)
    table = collect(cells, grid)
    if grid.tables_only and not len(table) and (folder / RESULTS_FILE).is_file():
        logger.info("No cell is finished in %s; the tables are made from %s", grid.output, folder / RESULTS_FILE)
        table = load_results(folder / RESULTS_FILE, cells)
    else:
        write_results(table, folder / RESULTS_FILE)
    results = Results.of(table)
    drawn = draw(grid, cells, results, folder) if last else []
    write_tables(grid, cells, results, drawn, folder, command)
    if last:
        write_archive(cells, grid, folder / ARCHIVE_FILE)
    means = [means_table(grid, cells, results, split) for split in grid.splits]
    return Outcome(folder, means, unfinished(cells, grid, results))
