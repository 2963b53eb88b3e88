"""Schemas of every task, and what is built of a configuration on them."""

from __future__ import annotations

from cove_dist.config import RunConfig
from cove_dist.config_folders import config_folder
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import INPUT, OWNER, TARGET, Categorical, Dense, Schema


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


SCHEMA = Schema(
    name="x",
    label="label",
    categorical=(
        Categorical("user_id", 12, 10, "user"),
        Categorical("item_id", 9, 9, "item"),
        Categorical("weekday", 7, 7),
        Categorical("before", 9, 9, sequence=True, table="item_id", max_length=3),
    ),
    dense=(Dense("age", 0.0, 1.0),),
    splits={},
)
IMPLICIT = Schema(
    name="z",
    label="label",
    categorical=SCHEMA.categorical[:2],
    dense=(),
    splits={},
    implicit=True,
    candidates=Categorical("candidates", 9, 9, "item", sequence=True, table="item_id"),
    attributes={"category": 4, "brand": 3},
)
LISTS = Schema(
    name="y",
    label=None,
    categorical=(
        Categorical(INPUT, 9, 8, "item", sequence=True, max_length=5),
        Categorical(TARGET, 9, 8, "item", sequence=True, max_length=6),
        Categorical(OWNER, 4, 3, "owner"),
    ),
    dense=(),
    splits={},
)


def build(config: RunConfig) -> TaskModel:
    schemas = {"ctr": SCHEMA, "cf": IMPLICIT, "sequential": LISTS}
    return task_of(config).build_model(config, schemas[config.model.kind.task])
