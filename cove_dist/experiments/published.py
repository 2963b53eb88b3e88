"""Published values and gains of a grid, and whether its runs still have the data that they are of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

from pydantic import BeforeValidator

from cove_dist.config import settings
from cove_dist.config.composition import compose_yaml
from cove_dist.config.overrides import key_of
from cove_dist.config.yaml_files import FILE, plain
from cove_dist.errors import ConfigError
from cove_dist.experiments.common import ExperimentConfig, merged

logger = logging.getLogger(__name__)

_OF_RUNS = ("common", "models", "quantizers")  # keys of an experiment that hold overrides of runs
_OF_DATA = ("data", "experiment")  # sections and groups that name the data of a run


def _section(value: Any) -> Any:
    return {} if value is None else value


ByModel = Annotated[
    dict[str, dict[str, dict[str, float]]], BeforeValidator(_section)
]  # model: {quantizer: {metric: …}}


@settings
class PaperConfig:
    """Published values, and published gains in percent. Models and quantizers that the grid lacks are ignored.

    Those of other data than the grid's (``same_data: false``) are shown and decide nothing.
    """

    source: str | None = None
    same_data: bool = True
    values: ByModel = field(default_factory=dict)
    gains: ByModel = field(default_factory=dict)

    def value(self, model: str, quantizer: str, metric: str) -> float | None:
        return self.values.get(model, {}).get(quantizer, {}).get(metric)

    def gain(self, model: str, quantizer: str, other: str, metric: str, *, over_base: bool) -> float | None:
        """Return the published gain in percent; computed from the published values if `other` is not the base."""
        published = self.gains.get(model, {}).get(quantizer, {}).get(metric) if over_base else None
        new, old = self.value(model, quantizer, metric), self.value(model, other, metric)
        if published is not None or new is None or old is None:
            return published
        return 100 * (new - old) / old


Paper = Annotated[PaperConfig, BeforeValidator(_section)]  # null: nothing is published


def refuse_empty(overrides: Sequence[str]) -> None:
    """Refuse an empty section of published values, which would be merged with that of the file and remove nothing.

    Raises:
        ConfigError: ``paper={}``, or such an override of a key in it.
    """
    for override in overrides:
        if key_of(override).partition(".")[0] == "paper" and override.partition("=")[2].replace(" ", "") == "{}":
            key = key_of(override)
            raise ConfigError(f"{override}: is merged with the file and removes nothing; give '~{key}' or {key}=null")


def warn_of_other_data(experiment: ExperimentConfig, paper: PaperConfig, overrides: Sequence[str]) -> None:
    """Warn where models with published values are trained on other data than the experiment's file names.

    Nothing is said of values that are of other data than the file's anyway.

    Args:
        experiment: Experiment with the overrides.
        paper: Published values of the experiment.
        overrides: Overrides of the experiment, with its file.
    """
    file = [override for override in overrides if key_of(override) == FILE]
    changed = any(key_of(override).partition(".")[0] in _OF_RUNS for override in overrides)
    models = {name: given for name, given in experiment.models.items() if name in {*paper.values, *paper.gains}}
    if not file or not changed or not models or not paper.same_data:
        return
    in_file = plain(compose_yaml("experiment", file))
    known = set(_data(*(in_file[key] if in_file[key] != "???" else {} for key in _OF_RUNS)).values())
    others = {
        pair: data
        for pair, data in _data(experiment.common, models, experiment.quantizers).items()
        if data not in known
    }
    if others:
        named = ", ".join(sorted({override for data in others.values() for override in data})) or "no data"
        logger.warning(
            "Published values of %s are of the data that the grid's file names, but the overrides of %s name %s. The"
            " values stay in the tables, and claims are judged by them; paper.same_data=false only shows them,"
            " paper=null leaves them out, title=TITLE names your data",
            paper.source or "the paper",
            ", ".join(dict.fromkeys(model for model, _ in others)),
            named,
        )


def _data(
    common: Sequence[str], models: Mapping[str, Sequence[str]], quantizers: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], frozenset[str]]:
    """Return the overrides that name the data of each pair of a model and a quantizer."""
    return {
        (model, quantizer): frozenset(
            override
            for override in merged(common or (), models[model] or (), quantizers[quantizer] or ())
            if key_of(override).partition(".")[0] in _OF_DATA
        )
        for model in models
        for quantizer in quantizers
    }
