"""A search file: a space of settings for every pair of a model and a quantizer, and one number of trials for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field

from cove_dist.config import settings
from cove_dist.config.yaml_files import did_you_mean
from cove_dist.errors import ConfigError
from cove_dist.experiments.common import ExperimentConfig, Overrides, load_experiment, merged
from cove_dist.types import NonNegativeInt, PositiveInt


@settings
class Number:
    """A number between two bounds, both included; ``log`` draws its logarithm uniformly."""

    keys: tuple[str, ...]
    type: Literal["float", "int"]
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low = {self.low:g}, high = {self.high:g}: low must be less, and above 0 with log")
        if self.type == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low = {self.low:g}, high = {self.high:g}: must be whole numbers with type int")

    def distribution(self) -> BaseDistribution:
        if self.type == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def encode(self, value: Any) -> float | None:
        """Return a configuration's value as a trial's parameter; None if it is outside the space."""
        inside = isinstance(value, (int, float)) and self.low <= value <= self.high
        return value if inside else None


@settings
class Choice:
    """One of several values of any kind, lists too; a study keeps them as JSON."""

    keys: tuple[str, ...]
    type: Literal["categorical"]
    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices = []: needs one or more")

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution([_json(choice) for choice in self.choices])

    def encode(self, value: Any) -> str | None:
        return next((_json(choice) for choice in self.choices if choice == value), None)


Parameter = Annotated[Number | Choice, Field(discriminator="type")]


@settings
class SpaceConfig:
    all: dict[str, Parameter] = field(default_factory=dict)
    models: dict[str, dict[str, Parameter]] = field(default_factory=dict)
    quantizers: dict[str, dict[str, Parameter]] = field(default_factory=dict)


@settings
class SearchConfig(ExperimentConfig):
    space: SpaceConfig
    starts: tuple[dict[str, Any], ...]
    trials: PositiveInt
    startup_trials: PositiveInt
    prune_after: PositiveInt | None
    seed: NonNegativeInt

    def parameters(self, model: str, quantizer: str) -> dict[str, Number | Choice]:
        """Return the space of a pair."""
        own = self.space.models.get(model, {}) | self.space.quantizers.get(quantizer, {})
        return self.space.all | own

    def start(self, model: str, quantizer: str, number: int) -> dict[str, Any]:
        """Return a start's values of the parameters that a pair has, as a trial's parameters."""
        parameters, values = self.parameters(model, quantizer), self.starts[number]
        return {name: parameters[name].encode(value) for name, value in values.items() if name in parameters}

    def fixed(self, model: str, quantizer: str) -> Overrides:
        """Return the overrides that all trials of a pair share."""
        return merged(self.common, self.models[model], self.quantizers[quantizer], [f"seed={self.seed}"])


def load_search(overrides: Sequence[str]) -> SearchConfig:
    """Load the settings of a search; a `ConfigError` has one line per wrong key, or names a pair without parameters."""
    missing = "give a search file, such as tune_movielens"
    whole, search = load_experiment(SearchConfig, "tune", overrides, missing)
    for model, quantizer in search.all_pairs():
        if not search.parameters(model, quantizer):
            raise ConfigError(f"space: has no parameters for {model}/{quantizer}")
    rest = [override for override in overrides if not override.startswith("~space.")]
    whole = whole if len(rest) == len(overrides) else load_experiment(SearchConfig, "tune", rest, missing)[0]
    _check_space(whole)
    _check_starts(whole)
    return search


def _check_space(search: SearchConfig) -> None:
    """Refuse parameters of a model or a quantizer that is not in the search."""
    for key in ("models", "quantizers"):
        known = list(getattr(search, key))
        for name in getattr(search.space, key).keys() - set(known):
            raise ConfigError(
                f"space.{key}.{name}: not in {key}{did_you_mean(name, known)} {key} has {', '.join(known)}"
            )


def _check_starts(search: SearchConfig) -> None:
    """Refuse starts with a parameter that no pair has, or with a value outside the space."""
    known = {name for pair in search.all_pairs() for name in search.parameters(*pair)}
    for number, values in enumerate(search.starts):
        for name in values.keys() - known:
            raise ConfigError(f"starts.{number}.{name}: no such parameter; the space has {', '.join(sorted(known))}")
        for pair in search.all_pairs():
            for name in [name for name, value in search.start(*pair, number).items() if value is None]:
                raise ConfigError(f"starts.{number}.{name} = {values[name]}: outside the space of {'/'.join(pair)}")


def sampled(parameters: Mapping[str, Number | Choice], values: Mapping[str, Any]) -> Overrides:
    """Return a trial's parameters as overrides."""
    return tuple(f"{key}={short(value)}" for name, value in values.items() for key in parameters[name].keys)


def short(value: Any) -> str:
    """Return a parameter as it is trained with: numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def defaults(parameters: Mapping[str, Number | Choice], composed: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the values that a configuration has without a search, if they are in the space.

    Returns:
        The values, as a trial's parameters, of several keys the first one's; and why a trial that has them is not the
        configuration without a search, nothing if it is.
    """
    found, reasons = {}, []
    for name, parameter in parameters.items():
        values = {key: _plain(OmegaConf.select(composed, key)) for key in parameter.keys}
        first = values[parameter.keys[0]]
        encoded = parameter.encode(first)
        if any(value != first for value in values.values()):
            shown = ", ".join(f"{key} = {value}" for key, value in values.items())
            reasons.append(f"the keys of {name} have different defaults ({shown})")
        if encoded is None:
            reasons.append(f"default of {name}, {first}, is outside its space")
        else:
            found[name] = encoded
    return found, reasons


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
