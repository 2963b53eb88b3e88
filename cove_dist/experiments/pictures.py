"""Pictures of a grid: metrics by quantizer as dots with intervals, and the gain by a varied setting as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from omegaconf import OmegaConf

from cove_dist.errors import ConfigError
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.experiments.names import Names
from cove_dist.experiments.results import Results
from cove_dist.experiments.statistics import compare, interval_of_mean, mean_and_deviation
from cove_dist.report.drawing import COLOURS, GREY, Picture, canvas
from cove_dist.tasks.configuration import load_run_config


def draw(grid: GridConfig, cells: Sequence[Cell], results: Results, folder: Path) -> list[Picture]:
    """Draw the picture that the grid requests, for every split that has results.

    Raises:
        ConfigError: No setting, or none that is a number, is called ``varied``.
    """
    splits = [split for split in grid.splits if any(key[0] == split for key in results.values)]
    if grid.picture == "dots":
        return [draw_dots(grid, results, split, folder) for split in splits]
    settings = settings_of(grid, cells) if grid.picture == "curve" else {}
    return [draw_curves(grid, settings, results, split, folder) for split in splits if grid.base in settings]


def draw_dots(grid: GridConfig, results: Results, split: str, folder: Path) -> Picture:
    """Draw a row of panels per metric, a panel per model, a line per quantizer: mean over seeds and 95 % interval."""
    path = folder / f"dots_{split}.png"
    found = {model for of_split, model, *_ in results.values if of_split == split}
    models = [model for model in dict.fromkeys(model for model, _ in grid.pairs()) if model in found]
    quantizers = [name for name in grid.quantizers if any(quantizer == name for _, quantizer in grid.pairs())]
    names, height = Names.of(grid), 0.9 + 0.22 * len(quantizers)
    with canvas(path, len(grid.metrics), len(models), width=2.6, height=height, share_y=True) as axes:
        for row, metric in zip(axes, grid.metrics, strict=True):
            for panel, model in zip(row, models, strict=True):
                values = [list(results.of_seeds(split, model, name, metric).values()) for name in quantizers]
                _dots(panel, values)
                panel.set(title=f"{names.model(model)}, {names.metric(metric)}")
                panel.set_yticks(range(len(quantizers)), [names.quantizer(name) for name in quantizers])
                panel.set_ylim(len(quantizers) - 0.5, -0.5)
    caption = "Mean over seeds, with the 95 % interval of the mean by Student's t; small: the seeds. Scales differ."
    return Picture(path, grid.title, caption)


def _dots(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    """Draw the mean, the interval and the values of each line."""
    for line, of_line in enumerate(values):
        if not of_line:
            continue
        colour = COLOURS[line % len(COLOURS)]
        axes.plot(of_line, [line] * len(of_line), "o", color=colour, markersize=2.5, alpha=0.4)
        mean, (low, high) = mean_and_deviation(of_line)[0], interval_of_mean(of_line)
        axes.plot([low, high], [line, line], "-", color=colour, linewidth=1.2)
        axes.plot([mean], [line], "o", color=colour, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def draw_curves(grid: GridConfig, settings: dict[str, float], results: Results, split: str, folder: Path) -> Picture:
    """Draw a panel per model, a line per metric: gain over the base by the varied setting, with its 95 % interval."""
    path = folder / f"curve_{split}.png"
    models = list(dict.fromkeys(model for model, _ in grid.pairs()))
    with canvas(path, 1, len(models), width=3.6, height=2.6) as axes:
        for panel, model in zip(axes[0], models, strict=True):
            _curves(panel, grid, settings, results, split, model)
        axes[0, 0].legend()
    base = f"{grid.varied} = {settings[grid.base]:g}"
    caption = f"Gain over {base}, paired by seed; bands are 95 % intervals."
    return Picture(path, grid.title, caption)


def _curves(axes: Axes, grid: GridConfig, settings: dict[str, float], results: Results, split: str, model: str) -> None:
    ordered = sorted(settings, key=settings.__getitem__)
    for metric, colour in zip(grid.metrics, COLOURS * len(grid.metrics), strict=False):
        base = results.of_seeds(split, model, grid.base, metric)
        compared = [(settings[q], compare(results.of_seeds(split, model, q, metric), base)) for q in ordered]
        points = [(x, 100 * c.gain, 100 * c.low, 100 * c.high) for x, c in compared if not math.isnan(c.gain)]
        x, gain, low, high = np.array(points, dtype=np.float64).reshape(-1, 4).T
        axes.plot(x, gain, marker="o", markersize=3, color=colour, label=Names.of(grid).metric(metric))
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=Names.of(grid).model(model), xlabel=str(grid.varied), ylabel="gain")
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=1))


def settings_of(grid: GridConfig, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the varied setting of every quantizer, from the configuration that its cells compose."""
    found: dict[str, float] = {}
    for cell in cells:
        if cell.quantizer not in found:
            value = OmegaConf.select(load_run_config(cell.overrides)[1], str(grid.varied))
            if not isinstance(value, (int, float)):
                raise ConfigError(f"varied = {grid.varied}: is {value} in {cell.name}; a curve needs a number")
            found[cell.quantizer] = float(value)
    return found
