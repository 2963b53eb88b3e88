"""Pictures of a grid: metrics by quantizer as bars, and the gain by a varied setting as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from omegaconf import OmegaConf

from cove_dist.errors import ConfigError
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.experiments.results import Results
from cove_dist.experiments.statistics import compare, mean_and_deviation
from cove_dist.report.drawing import COLOURS, GREY, Picture, canvas
from cove_dist.tasks.configuration import load_run_config


def draw(grid: GridConfig, cells: Sequence[Cell], results: Results, folder: Path) -> list[Picture]:
    """Draw the picture that the grid requests, for every split that has results.

    Raises:
        ConfigError: No setting, or none that is a number, is called ``varied``.
    """
    splits = [split for split in grid.splits if any(key[0] == split for key in results.values)]
    if grid.picture == "bars":
        return [draw_bars(grid, results, split, folder) for split in splits]
    settings = settings_of(grid, cells) if grid.picture == "curve" else {}
    return [draw_curves(grid, settings, results, split, folder) for split in splits if grid.base in settings]


def draw_bars(grid: GridConfig, results: Results, split: str, folder: Path) -> Picture:
    """Draw a row of panels per metric, a panel per model, a bar per quantizer, with the deviation over seeds."""
    path = folder / f"bars_{split}.png"
    models = list(dict.fromkeys(model for model, _ in grid.pairs()))
    with canvas(path, len(grid.metrics), len(models), width=2.6, height=2.2) as axes:
        for row, metric in zip(axes, grid.metrics, strict=True):
            for panel, model in zip(row, models, strict=True):
                _bars(panel, grid, results, split, model, metric)
    caption = "Mean over seeds; the line is ± one standard deviation. The scales do not begin at 0."
    return Picture(path, grid.title, caption)


def _bars(axes: Axes, grid: GridConfig, results: Results, split: str, model: str, metric: str) -> None:
    names = [quantizer for m, quantizer in grid.pairs() if m == model]
    values = [mean_and_deviation(list(results.of_seeds(split, model, name, metric).values())) for name in names]
    means, deviations = (np.array(column) for column in zip(*values, strict=True))
    spread = np.nan_to_num(deviations)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    axes.bar(names, np.nan_to_num(means), yerr=spread, color=colours, width=0.65, capsize=3)
    axes.set(title=f"{model}, {metric}")
    known = ~np.isnan(means)
    if known.any():
        low, high = (means - spread)[known].min(), (means + spread)[known].max()
        room = (high - low) or abs(high) or 1.0
        axes.set_ylim(low - 0.5 * room, high + 0.15 * room)


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
        axes.plot(x, gain, marker="o", markersize=3, color=colour, label=metric)
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=model, xlabel=str(grid.varied), ylabel="gain")
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
