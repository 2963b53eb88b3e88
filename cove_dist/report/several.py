"""A report on several runs: their metrics in one table, their curves in common panels."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from cove_dist.checkpoints.evaluated import check_current
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import higher_is_better, is_metric, title
from cove_dist.evaluation.frequency import is_grouped
from cove_dist.evaluation.metrics_files import Evaluated, check_comparable
from cove_dist.report.drawing import COLOURS, Picture, canvas, from_zero, label
from cove_dist.report.page import MetricRow, render_several
from cove_dist.report.run_folder import Run, load_run, series

PAGE = "report.html"


def report_runs(folders: Sequence[str], output: str | None) -> Path:
    """Write the pictures and the page of several runs; return the page's path.

    Args:
        folders: Run folders, two or more.
        output: Folder to write; None: ``report`` in the folder that all runs are in.

    Raises:
        ConfigError: A folder is given twice, holds no run or no log, or the metrics of two runs mean different things.
    """
    if len(set(map(os.path.normpath, folders))) < max(len(folders), 2):
        raise ConfigError(f"runs = {list(folders)}: give two or more different run folders; of one run: run=FOLDER")
    runs = {name: load_run(Path(folder)) for name, folder in zip(labels(folders), folders, strict=True)}
    folder = Path(output or Path(os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in folders])) / "report")
    metrics, notes = metric_rows(runs)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [*_draw_validation(runs, folder), *_draw_training(runs, folder)]
    page = folder / PAGE
    page.write_text(render_several(runs, metrics, pictures, notes))
    return page


def labels(folders: Sequence[str]) -> list[str]:
    """Return the names of run folders, with as many parent folders as make them different."""
    parts = [Path(os.path.normpath(folder)).parts for folder in folders]
    depth = next(n for n in range(1, 1 + max(map(len, parts))) if len({each[-n:] for each in parts}) == len(parts))
    return ["/".join(each[-depth:]) for each in parts]


def metric_rows(runs: Mapping[str, Run]) -> tuple[list[MetricRow], list[str]]:
    """Return the test metrics of the best checkpoints side by side, and what a reader must know of them.

    Raises:
        ConfigError: The metrics of two runs mean different things.
    """
    found: dict[str, Evaluated] = {}
    notes = []
    for name, run in runs.items():
        of_run = [each for each in run.evaluated if (each.split, each.kind) == ("test", "best")]
        try:
            for each in of_run:
                check_current(run.folder, each)
                found[name] = each
                if unknown := each.unknown():
                    notes.append(f"{name}: left out {', '.join(unknown)}, which no imported class declares.")
        except ConfigError as error:
            notes.append(f"{error}.")
        if not of_run:
            notes.append(f"{name} is not evaluated: cove evaluate run={run.folder}.")
    if not found:
        return [], notes
    notes = [*check_comparable(found), *notes]
    names = dict.fromkeys(name for each in found.values() for name in each.metrics)
    rows = []
    for name in names:
        if is_metric(name) and not is_grouped(name):
            values = [found[run].metrics.get(name) if run in found else None for run in runs]
            known = [value for value in values if value is not None and not math.isnan(value)]
            best = (max if higher_is_better(name) else min)(known, default=None)
            rows.append(MetricRow(title(name), values, [len(known) > 1 and value == best for value in values]))
    return rows, [f"Metrics of the {next(iter(found.values())).words.partition(',')[0]}, best checkpoints.", *notes]


def _draw_validation(runs: Mapping[str, Run], folder: Path) -> list[Picture]:
    """Draw a panel per metric, a line per run."""
    records = {name: run.of_kind("validation") for name, run in runs.items()}
    names = dict.fromkeys(name for each in records.values() for record in each for name in record if is_metric(name))
    if not names:
        return []
    path, columns = folder / "validation.png", min(4, len(names))
    with canvas(path, math.ceil(len(names) / columns), columns, width=2.6, height=2.1) as axes:
        for panel, name in zip(axes.flat, names, strict=False):
            for (run, of_run), colour in zip(records.items(), COLOURS * len(runs), strict=False):
                panel.plot(*series(of_run, "step", name), marker="o", markersize=2.5, color=colour, label=run)
            label(panel, title(name), "step", "")
        for panel in axes.flat[len(names) :]:
            panel.set_axis_off()
        _legend(axes.flat[0])
    return [Picture(path, "Validation metrics", "After each epoch.")]


def _draw_training(runs: Mapping[str, Run], folder: Path) -> list[Picture]:
    """Draw the loss and the speed, a line per run."""
    records = {name: run.of_kind("train") for name, run in runs.items()}
    if not any(records.values()):
        return []
    path = folder / "training.png"
    with canvas(path, 1, 2) as axes:
        for panel, (name, what, unit) in zip(
            axes[0], (("loss", "training loss", "loss"), ("samples_per_second", "speed", "samples/s")), strict=True
        ):
            for (run, of_run), colour in zip(records.items(), COLOURS * len(runs), strict=False):
                panel.plot(*series(of_run, "step", name), linewidth=1, color=colour, label=run)
            label(panel, what, "step", unit)
        from_zero(axes[0, 1])
        _legend(axes[0, 0])
    caption = "Means over the steps between two reports. Losses of different models or settings may not be comparable."
    return [Picture(path, "Training", caption)]


def _legend(axes: Axes) -> None:
    """Name the runs next to the panels."""
    handles, names = axes.get_legend_handles_labels()
    axes.figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
