"""Prepare a data set: raw files -> checked, encoded, split Parquet shards, in a folder that training streams from.

cove prepare data=movielens_100k
cove prepare data=mind_small source=downloads/mind
cove prepare data=custom source='logs/*.parquet' user=uid item=iid label=clicked time=ts
cove prepare data=custom source='logs/*.parquet' user=uid item=iid label=null engine=spark spark.master=spark://host:7077
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from cove_dist.commands.tables import report_table
from cove_dist.config import settings
from cove_dist.config.checks import check_arguments, target
from cove_dist.config.composition import compose_yaml, load_settings
from cove_dist.config.overrides import flat
from cove_dist.console import console
from cove_dist.errors import ConfigError
from cove_dist.faults.signals import named_signals
from cove_dist.types import Folder, NonNegativeInt, Text
from data_pipeline.preparation.dataset import Dataset
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import shown
from data_pipeline.preparation.workspace import DuckEngine, Engine

logger = logging.getLogger(__name__)

SOURCE_KEYS = ("source", "file")  # of raw files; the data sets of playlists have both, and file is a part of a name
OWN_KEYS = ("data", "output", "seed", "overwrite", "resume", "engine", "spark")


@settings
class SparkConfig:
    """Settings of ``engine=spark``."""

    master: Text | None
    conf: dict[str, Any]


@settings
class PrepareConfig:
    """Settings of the program; ``data`` is the section of the data set."""

    data: dict[str, Any]
    engine: Literal["duckdb", "spark"]
    spark: SparkConfig
    output: Folder | None
    overwrite: bool
    resume: bool
    seed: NonNegativeInt


def overrides(arguments: Sequence[str]) -> list[str]:
    """Expand keys of the data set: ``source=…`` becomes ``data.source=…``; the keys of the program are unchanged.

    Raises:
        ConfigError: An argument has no key, such as the path of a file alone.
    """
    for argument in arguments:
        if "=" not in argument and not argument.startswith("~"):
            raise ConfigError(f"{argument}: settings have the form key=value, such as data=custom source={argument}")
    return [a if a.lstrip("+").split("=")[0].split(".")[0] in OWN_KEYS else f"data.{a}" for a in arguments]


def source_key(data: str) -> str | None:
    """Return the key by which a data set names its raw files; None if it reads none.

    Raises:
        ConfigError: There is no such data set.
    """
    known = compose_yaml("prepare", [f"data={data}"]).data
    return next((key for key in SOURCE_KEYS if key in known), None)


def run(arguments: Sequence[str]) -> None:
    Console().print(report_table(prepare_data(arguments)))


def prepare_data(arguments: Sequence[str]) -> Path:
    """Prepare a data set, and return the folder that was written.

    Raises:
        ConfigError, DataError: A setting or the raw data are wrong.
    """
    request = load_settings(PrepareConfig, "prepare", overrides(arguments))
    dataset_class, values = target(request.data, "data")
    if not issubclass(dataset_class, Dataset):
        raise ConfigError(
            f"data._target_ = {request.data['_target_']}: not a data set; it must be a subclass of"
            f" {Dataset.__module__}.{Dataset.__name__}"
        )
    name, path = values.pop("name"), values.pop("path")
    dataset = dataset_class(**check_arguments(dataset_class, values, "data"))
    output = dataset.output(request.output, path)
    begun = "the same command goes on" if request.resume else "what was begun is removed"
    engine = _engine(request)
    with (
        named_signals(f"stopped; {output} is not written, and {begun}"),
        shown(console, logger.info) as stages,
    ):
        prepare(
            dataset,
            output,
            name=name,
            seed=request.seed,
            overwrite=request.overwrite,
            resume=request.resume,
            engine=engine,
            on_progress=stages.begin,
            on_percent=stages.advance,
        )
    return output


def _engine(request: PrepareConfig) -> Engine:
    """Return what runs the steps; raise `ConfigError` for settings of Spark without it."""
    conf = {name: str(value) for name, value in flat(request.spark.conf).items()}
    if request.engine == "duckdb":
        if request.spark.master is not None or conf:
            raise ConfigError(
                f"spark.master = {request.spark.master}, spark.conf = {conf}: do nothing with engine=duckdb. Set"
                " engine=spark, or leave them out"
            )
        return DuckEngine()
    from data_pipeline.preparation.spark.engine import SparkEngine

    return SparkEngine(request.spark.master, conf)
