"""A grid of models x quantizers x seeds: its settings, and the cells they name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from cove_dist.config import settings
from cove_dist.config.composition import load_settings
from cove_dist.config.overrides import key_of
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import check_metrics, is_metric
from cove_dist.experiments.common import ExperimentConfig, Overrides, load_experiment, merged
from cove_dist.experiments.published import Paper, PaperConfig, refuse_empty, warn_of_other_data
from cove_dist.experiments.tuned import Pairs, read_tuned
from cove_dist.inference.evaluate import EvaluateConfig
from cove_dist.tasks.configuration import check_run_config, compose_run_config
from cove_dist.types import Folder, Seed, Text, UnitInterval


@settings
class GridConfig(ExperimentConfig):
    results: Folder | None
    base: str
    seeds: tuple[Seed, ...]
    tuned: Text | tuple[Text, ...] | None
    tuned_as: dict[str, str]
    splits: tuple[Literal["validation", "test"], ...]
    evaluate: Overrides
    metrics: tuple[str, ...]
    by_frequency: tuple[str, ...]
    compare: tuple[tuple[str, str], ...]
    significance: UnitInterval
    names: dict[str, Text]
    picture: Literal["dots", "curve"] | None
    varied: str | None
    changed: Literal["error", "retrain"]
    keep_checkpoints: Literal["best", "all", "none"]
    restore: bool
    reevaluate: bool
    tables_only: bool
    paper: Paper = field(default_factory=PaperConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("seeds", "splits", "metrics"):
            if len(set(getattr(self, key))) != len(getattr(self, key)) or not getattr(self, key):
                raise ValueError(f"{key} = {list(getattr(self, key))}: needs one or more, all different")
        unknown = [name for name in (self.base, *chain(*self.compare)) if name not in self.quantizers]
        unknown += [pattern for pattern in self.tuned_as if not any(fnmatchcase(q, pattern) for q in self.quantizers)]
        if unknown:
            raise ValueError(f"base, compare and tuned_as: {unknown[0]} is none of {', '.join(self.quantizers)}")
        if (self.picture == "curve") != (self.varied is not None):
            raise ValueError(f"varied = {self.varied}: goes with picture=curve, and is a key such as quantizer.alpha")

    def of_others(self, quantizers: Collection[str]) -> dict[str, Any]:
        patterns = (each for each in self.tuned_as if any(fnmatchcase(name, each) for name in quantizers))
        return {
            "compare": tuple(pair for pair in self.compare if set(pair) <= set(quantizers)),
            "tuned_as": {pattern: self.tuned_as[pattern] for pattern in patterns},
        }

    def tuned_name(self, quantizer: str) -> str:
        """Return the name of a quantizer in a search: its entry in `tuned_as`, or else that of the first pattern."""
        found = (tuned for pattern, tuned in self.tuned_as.items() if fnmatchcase(quantizer, pattern))
        return self.tuned_as.get(quantizer, next(found, quantizer))

    @property
    def results_folder(self) -> Path:
        return Path(self.results or self.output)

    @property
    def checkpoint(self) -> str:
        """The kind of checkpoint that is evaluated: ``best``, unless `evaluate` has another."""
        return dict(argument.split("=", 1) for argument in self.evaluate if "=" in argument).get("checkpoint", "best")

    def comparisons(self) -> list[tuple[str, str]]:
        """Return pairs of quantizers: the one claimed to be better, and the one it is compared with."""
        return [(name, self.base) for name in self.quantizers if name != self.base] + list(self.compare)


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        overrides: Overrides of ``cove train``.
    """

    model: str
    quantizer: str
    seed: int
    folder: Path
    overrides: Overrides

    @property
    def name(self) -> str:
        return f"{self.model}/{self.quantizer}/seed_{self.seed}"


def load_grid(overrides: Sequence[str]) -> GridConfig:
    """Load the settings of a grid; a `ConfigError` has one line per wrong key."""
    refuse_empty(overrides)
    _, grid = load_experiment(GridConfig, "experiment", overrides, missing="give a grid file, such as table4_movielens")
    _check_metrics(grid)
    evaluation(grid.evaluate)
    warn_of_other_data(grid, grid.paper, overrides)
    return grid


@cache
def evaluation(arguments: Overrides) -> EvaluateConfig:
    """Return the settings of ``cove evaluate`` for the cells of a grid, with any run and split.

    Raises:
        ConfigError: An argument is wrong, or one that the grid gives itself.
    """
    for argument in arguments:
        if key_of(argument) in ("run", "split"):
            raise ConfigError(f"evaluate: {argument}: comes from the grid, as its cells and `splits`; leave it out")
    try:
        return load_settings(EvaluateConfig, "evaluate", ["run=any", *arguments])
    except ConfigError as error:
        raise ConfigError(f"evaluate = {list(arguments)}: {error}") from error


def _check_metrics(grid: GridConfig) -> None:
    """Check that the metrics of the tables exist; the configurations of the runs declare further ones."""
    named = (*grid.metrics, *grid.by_frequency)
    for model, quantizer in grid.all_pairs():
        if all(map(is_metric, named)):
            return
        try:
            check_run_config(compose_run_config(merged(grid.common, grid.models[model], grid.quantizers[quantizer])))
        except ConfigError as error:
            raise ConfigError(f"{model}/{quantizer}: {error}") from error
    try:
        check_metrics("metrics", grid.metrics)
        check_metrics("by_frequency", grid.by_frequency)
    except ConfigError as error:
        raise ConfigError(f"{error}; a further metric needs metric=NAME in common, as cove train takes it") from error


def cells_of(grid: GridConfig) -> list[Cell]:
    """Return the cells, seed by seed, so that the first finished cells compare all models and quantizers.

    Raises:
        ConfigError: A file of tuned overrides is not there, or they lack a cell's pair.
    """
    tuned = tuned_overrides(grid)
    return [_cell(grid, tuned, model, quantizer, seed) for seed in grid.seeds for model, quantizer in grid.pairs()]


def _cell(grid: GridConfig, tuned: Mapping[tuple[str, str], Overrides], model: str, quantizer: str, seed: int) -> Cell:
    folder = Path(grid.output) / model / quantizer / f"seed_{seed}"
    found = tuned.get((model, quantizer), ())
    own = (f"seed={seed}", f"output={folder}")
    chosen = grid.quantizers[quantizer]
    both = (
        (chosen, found) if grid.tuned_name(quantizer) == quantizer else (found, chosen)
    )  # the former as in its trials
    overrides = merged(grid.common, grid.models[model], *both, own)
    return Cell(model, quantizer, seed, folder, overrides)


def tuned_overrides(grid: GridConfig) -> dict[tuple[str, str], Overrides]:
    """Return the tuned overrides of every pair of the grid; empty if the grid names no file."""
    return {(model, quantizer): found["overrides"] for (model, quantizer), found in _tuned(grid).items()}


def tuning_note(grid: GridConfig) -> str:
    """Describe for the tables how the settings were found."""
    if grid.tuned is None:
        return "Settings are those of the configuration files; none was tuned."
    searched = [(model, found) for (model, _), found in _tuned(grid).items()]
    metrics, by_model = sorted({each["metric"] for _, each in searched}), {(m, each["trials"]) for m, each in searched}
    trials, equal = {count for _, count in by_model}, len(by_model) == len({model for model, _ in by_model})
    span = f"{min(trials)} to {max(trials)} trials"
    if len(trials) == 1:
        budget = f"{min(trials)} trials each"
    else:
        budget = f"{span}, as many for each quantizer of a model" if equal else f"unequal budgets of {span}"
    lent: dict[str, list[str]] = {}
    for quantizer in dict.fromkeys(quantizer for _, quantizer in grid.pairs()):
        if grid.tuned_name(quantizer) != quantizer:
            lent.setdefault(grid.tuned_name(quantizer), []).append(quantizer)
    others = "".join(f"; not searched, at the settings of {name}: {', '.join(taken)}" for name, taken in lent.items())
    return f"Settings tuned by {budget}, on {', '.join(metrics)}{others}."


def _tuned(grid: GridConfig) -> Pairs:
    """Return what searches have found for every pair of the grid, by the names it has there."""
    if grid.tuned is None:
        return {}
    pairs, used = read_tuned(grid.tuned), {}
    for model, quantizer in grid.pairs():
        name = grid.tuned_name(quantizer)
        if (model, name) not in pairs:
            files = grid.tuned if isinstance(grid.tuned, str) else ", ".join(grid.tuned)
            raise ConfigError(
                f"tuned = {files}: has no overrides for {model}/{name}; search for them by cove tune,"
                " name another pair in tuned_as, or give tuned=null"
            )
        used[model, quantizer] = pairs[model, name]
    return used
