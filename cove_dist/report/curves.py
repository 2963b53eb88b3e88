"""Pictures of a run's log: losses, validation metrics, health of the codebooks, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from cove_dist.evaluation.declarations import is_metric, title
from cove_dist.report.drawing import COLOURS, GREY, Picture, canvas, from_zero, label, logarithmic
from cove_dist.report.run_folder import Record, Run, series
from data_pipeline.schema import Entity

_NOT_LOSSES = ("kind", "step", "epoch", "samples_per_second", "resident_mb", "device_mb", "gradient_norm")
_USAGE = ("perplexity_", "dead_")
_OTHERS = ("revived_", "learning_rate_")
_WIDE_RANGE = 5  # a ratio of codebook sizes, or of losses, from which a logarithmic scale reads better


def draw_losses(run: Run, folder: Path) -> list[Picture]:
    """Draw the total and the task's loss in one panel; the other parts, which are far smaller, in a second."""
    records = run.of_kind("train")
    names = [name for name in dict.fromkeys(key for record in records for key in record) if _is_loss(name)]
    parts = [name for name in names if name not in ("loss", "task")]
    if not names:
        return []
    path = folder / "losses.png"
    with canvas(path, 1, 2 if parts else 1) as axes:
        axes[0, 0].plot(*series(records, "step", "loss"), label="total")
        if parts:
            axes[0, 0].plot(*series(records, "step", "task"), "--", label="task")
        label(axes[0, 0], "training loss", "step", "loss (mean over rows)")
        if parts:
            _draw_parts(axes[0, 1], records, parts)
            axes[0, 0].legend()
    caption = "Means over the steps between two reports. Parts are shown before they are weighted."
    return [Picture(path, "Training loss", caption)]


def _draw_parts(axes: Axes, records: list[Record], parts: Sequence[str]) -> None:
    drawn = [series(records, "step", name) for name in parts]
    for name, (steps, values) in zip(parts, drawn, strict=True):
        axes.plot(steps, values, label=name.replace("_", ", "))
    label(axes, "its parts other than the task", "step", "loss (mean over rows)")
    positive = np.concatenate([values[values > 0] for _, values in drawn])
    if len(positive) and positive.max() > _WIDE_RANGE * positive.min():
        logarithmic(axes, "y")
    axes.legend()


def _is_loss(name: str) -> bool:
    return name not in _NOT_LOSSES and not name.startswith(_USAGE + _OTHERS)


def draw_validation(run: Run, folder: Path) -> list[Picture]:
    """Draw a small panel per metric, against the step, with the best epoch marked."""
    records, best = run.of_kind("validation"), run.best_validation()
    names = [name for name in dict.fromkeys(key for record in records for key in record) if is_metric(name)]
    names.sort(key=lambda name: name != run.stopping_metric)
    if not names:
        return []
    path, columns = folder / "validation.png", min(4, len(names))
    with canvas(path, math.ceil(len(names) / columns), columns, width=2.6, height=2.1) as axes:
        for panel, name in zip(axes.flat, names, strict=False):
            panel.plot(*series(records, "step", name), marker="o", markersize=3)
            if best is not None:
                panel.axvline(best["step"], color=GREY, linestyle=":", linewidth=1)
                panel.plot([best["step"]], [best.get(name, math.nan)], "o", color=COLOURS[1], markersize=6)
            label(panel, title(name), "step", "")
        for panel in axes.flat[len(names) :]:
            panel.set_axis_off()
    mark = ""
    if best is not None:
        mark = f"The mark is epoch {best['epoch']}, step {best['step']:,}, the best by {title(run.stopping_metric)}."
    return [Picture(path, "Validation metrics", f"At each validation. {mark}")]


def draw_usage(run: Run, folder: Path) -> list[Picture]:
    """Draw the perplexity per level, a column per entity; below it the share of dead codes, if the log has it."""
    named = [name for record in run.records for name in record]
    entities = [entity for entity in run.levels if f"perplexity_{entity}_1" in named]
    kinds = [kind for kind in _USAGE if any(name.startswith(kind) for name in named)]
    if not entities:
        return []
    path = folder / "perplexity.png"
    with canvas(path, len(kinds), len(entities)) as axes:
        for column, entity in enumerate(entities):
            _draw_perplexity(axes[0, column], run, entity)
            if len(kinds) > 1:
                _draw_levels(axes[1, column], run, entity, "dead")
                label(axes[1, column], f"{entity}: dead codes", "step", "share of the level's codes")
                axes[1, column].set_ylim(-0.02, 1.02)
                axes[1, column].yaxis.set_major_formatter(PercentFormatter(1))
    caption = (
        "Perplexity is exp of the entropy of the codes chosen, each as often as the training rows chose it: the"
        " number v of codes (dotted) when all are used alike, 1 when one takes all. "
    )
    caption += "Dead codes were never chosen. " if len(kinds) > 1 else ""
    caption += "Thin lines: over the steps between two reports."
    caption += " Dots: over a whole epoch." if run.of_kind("codebooks") else ""
    return [Picture(path, "Use of the codes in training", caption)]


def _draw_perplexity(axes: Axes, run: Run, entity: Entity) -> None:
    sizes = run.levels[entity]
    _draw_levels(axes, run, entity, "perplexity")
    for size, colour in zip(sizes, _colours(sizes), strict=True):
        axes.axhline(size, color=colour, linestyle=":", linewidth=1)
    label(axes, f"{entity}: perplexity", "step", "perplexity (codes)")
    if sizes[0] > _WIDE_RANGE * sizes[-1]:
        logarithmic(axes, "y")
        axes.set_ylim(0.9, 3 * sizes[0])
    else:
        axes.set_ylim(0, 1.2 * sizes[0])
    axes.legend(loc="upper right", ncols=len(sizes))  # above the dotted lines, where no curve can be


def _draw_levels(axes: Axes, run: Run, entity: Entity, figure: str) -> None:
    sizes = run.levels[entity]
    for level, (size, colour) in enumerate(zip(sizes, _colours(sizes), strict=True), start=1):
        name = f"{figure}_{entity}_{level}"
        axes.plot(*series(run.of_kind("train"), "step", name), color=colour, linewidth=0.9, alpha=0.8)
        epochs = series(run.of_kind("codebooks"), "step", name)
        axes.plot(*epochs, "o", color=colour, markeredgecolor="white", markersize=5.5, zorder=3)
        axes.plot([], [], color=colour, label=f"level {level} ({size:,})")


def _colours(levels: Sequence[int]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(levels))]


def draw_speed(run: Run, folder: Path) -> list[Picture]:
    """Draw samples per second and resident memory, small."""
    records: list[Record] = run.of_kind("train")
    if not records:
        return []
    path = folder / "speed.png"
    shown = (("samples_per_second", "speed", "samples/s"), ("resident_mb", "memory of the largest rank", "resident MB"))
    with canvas(path, 1, 2, width=3.6, height=2.0) as axes:
        for panel, (name, title, unit) in zip(axes.flat, shown, strict=True):
            panel.plot(*series(records, "step", name), linewidth=1)
            label(panel, title, "step", unit)
            from_zero(panel)
    return [Picture(path, "Speed and memory", "Over all ranks. The time of validation is left out of the speed.")]
