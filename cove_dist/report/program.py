"""A report on a run, from overrides to pictures and a page in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from cove_dist.config import settings
from cove_dist.config.composition import load_settings
from cove_dist.faults.outputs import check_writable
from cove_dist.report.agreement import Agreement, all_curves, compare, draw_coverage
from cove_dist.report.categories import data_folder, load_categories, load_titles
from cove_dist.report.codes import EntityCodes, draw_sizes, load_codes
from cove_dist.report.curves import draw_losses, draw_speed, draw_usage, draw_validation
from cove_dist.report.examples import CodeExample, code_examples
from cove_dist.report.page import render
from cove_dist.report.run_folder import Run, load_run
from cove_dist.report.several import report_runs
from cove_dist.types import Folder, NonNegativeInt, PositiveInt, Text
from data_pipeline.files import replaced_file

PAGE, COVERAGE_FILE = "report.html", "coverage.parquet"


@settings
class ReportConfig:
    run: Text | None
    runs: tuple[Text, ...] | None
    output: Folder | None
    shuffles: PositiveInt
    top_categories: PositiveInt
    seed: NonNegativeInt

    def __post_init__(self) -> None:
        if (self.run is None) == (self.runs is None):
            raise ValueError("run: give the run folder as run=runs/a, or several as runs=[runs/a,runs/b]")


class Reported(NamedTuple):
    """What a report found.

    Attributes:
        page: Path of the page.
        agreement: Codes against categories, by level and category column; empty of several runs.
        examples: Ids of the largest codes; empty of several runs.
    """

    page: Path
    agreement: list[Agreement]
    examples: list[CodeExample]


def report_run(overrides: Sequence[str]) -> Reported:
    """Write the pictures, the page and, where categories are known, ``coverage.parquet``.

    Codes are exported first where a quantized run has none as new as its newest checkpoint.

    Raises:
        ConfigError, CheckpointError, DataError: No such run, no log, or files that are not what they should be.
    """
    request = load_settings(ReportConfig, "report", overrides)
    if request.runs is not None:
        return Reported(report_runs(request.runs, request.output), [], [])
    run = load_run(Path(str(request.run)))
    folder = Path(request.output or run.folder / "report")
    check_writable(folder)
    codes = load_codes(run)
    labels = {entity.entity: load_categories(run, entity) for entity in codes}
    compared = [
        compare(labelled, top_categories=request.top_categories, shuffles=request.shuffles, seed=request.seed)
        for of_entity in labels.values()
        for labelled in of_entity
    ]
    examples = [
        example
        for entity in codes
        for example in code_examples(entity, labels[entity.entity], load_titles(run, entity), request.seed)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [*draw_losses(run, folder), *draw_validation(run, folder), *draw_usage(run, folder)]
    pictures += draw_sizes(codes, folder)
    pictures += [draw_coverage(levels, folder, request.shuffles) for levels in compared]
    pictures += draw_speed(run, folder)
    agreement = [level for levels in compared for level in levels]
    if agreement:
        with replaced_file(folder / COVERAGE_FILE) as file:
            pq.write_table(all_curves(agreement), file, compression="zstd")
    rows, notes = [level.row() for level in agreement], _notes(run, codes, agreement)
    with replaced_file(folder / PAGE) as file:
        file.write_text(render(run, pictures, rows, notes, examples))
    return Reported(folder / PAGE, agreement, examples)


def _notes(run: Run, codes: Sequence[EntityCodes], agreement: Sequence[Agreement]) -> list[str]:
    """Describe what the page leaves out, and why."""
    if not run.levels:
        return ["This run has no quantizers: there are no codes to show."]
    if not codes:
        return ["The run has no checkpoint: pictures of the codes are left out."]
    if not agreement:
        data = data_folder(run)
        if data is None:
            return ["The data of the run are not there, or have changed: codes are not compared with categories."]
        return [f"{data} holds no categories of the ids: codes are not compared with any."]
    return []
