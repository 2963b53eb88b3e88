"""What is planned: the settings of the command, the configuration of the run, and the sizes of its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple, cast

from annotated_types import Ge, Lt
from pydantic import BeforeValidator

from cove_dist.config import RunConfig, settings
from cove_dist.config.composition import load_settings
from cove_dist.config.overrides import key_of, value_of
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import TASKS, task_of
from cove_dist.types import JsonFile, NonNegativeInt, PositiveFloat, PositiveInt
from data_pipeline.schema import INPUT, TARGET, Categorical, Dense, Schema
from data_pipeline.types import Number


def _whole(value: Any) -> Any:
    """Read ``1e9``, a float for YAML, as the integer that it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[PositiveInt, BeforeValidator(_whole)]
Share = Annotated[float, Number, Ge(0), Lt(1)]
STATED = ("users", "items", "columns", "dense_columns", "sequence_length")
_NO_FOLDER = "stated-sizes"
_BOTH = "users, items: state both, or give a prepared folder by data=FOLDER"


@settings
class PlanConfig:
    """Settings of the command, those of ``configs/plan.yaml``."""

    world_size: PositiveInt
    local_world_size: PositiveInt | None
    device: Literal["cpu", "cuda"]
    hbm_gb: PositiveFloat
    host_gb: PositiveFloat
    reserve: Share
    users: Count | None
    items: Count | None
    columns: dict[str, Count] | None
    dense_columns: NonNegativeInt
    sequence_length: PositiveInt
    hbm_gb_per_second: PositiveFloat
    host_gb_per_second: PositiveFloat
    hbm_to_host_gb_per_second: PositiveFloat
    intra_host_gb_per_second: PositiveFloat
    inter_host_gb_per_second: PositiveFloat
    tflops: PositiveFloat | None
    suggest: bool
    json: JsonFile | None

    def __post_init__(self) -> None:
        if self.world_size % self.ranks_per_host:
            raise ValueError(
                f"local_world_size = {self.ranks_per_host}: world_size = {self.world_size} is not a multiple of it"
            )
        if self.users is not None and self.items is None:
            raise ValueError(_BOTH)

    @property
    def ranks_per_host(self) -> int:
        """Number of ranks on a host."""
        return self.local_world_size or min(8, self.world_size)


class Request(NamedTuple):
    """A run to plan.

    Attributes:
        settings: Settings of the command.
        overrides: Overrides of the run.
        config, schema: Configuration and data of the run.
    """

    settings: PlanConfig
    overrides: list[str]
    config: RunConfig
    schema: Schema

    def changed(self, overrides: Sequence[str]) -> Request:
        """Return the same request with further overrides of the run.

        Raises:
            ConfigError: They do not fit the other settings.
        """
        replaced = {key_of(override) for override in overrides}
        kept = [override for override in self.overrides if key_of(override) not in replaced]
        return _request(self.settings, [*kept, *overrides])


def read_request(arguments: Sequence[str]) -> Request:
    """Read the arguments of the command: its own settings, and all others as those of the run.

    Raises:
        ConfigError, DataError: A setting is invalid, or the prepared folder is not there.
    """
    mine = own_settings(arguments)
    plan = load_settings(PlanConfig, "plan", mine)
    overrides = [argument for argument in arguments if argument not in mine]
    if (device := value_of(overrides, "trainer.device")) is not None:
        raise ConfigError(f"trainer.device = {device}: the device of the planned run is set by device={device}")
    stated = [key for key in STATED if value_of(mine, key) is not None]
    if stated and plan.items is None:
        raise ConfigError(f"{stated[0]}: acts with users=N items=N, the stated sizes of the data")
    if plan.items is not None:
        _refuse_data(overrides)
        overrides = ["data=custom", f"data.path={_NO_FOLDER}", *overrides]
    return _request(plan, [*overrides, f"trainer.device={plan.device}"])


def own_settings(arguments: Sequence[str]) -> list[str]:
    """Return those of the arguments that are settings of the command; the others are of the run."""
    own = {field.name for field in fields(cast(Any, PlanConfig))}
    return [argument for argument in arguments if key_of(argument).partition(".")[0] in own]


def _refuse_data(overrides: list[str]) -> None:
    for key in ("data", "data.path"):
        if (value := value_of(overrides, key)) is not None:
            raise ConfigError(f"{key} = {value}: give either a prepared folder, or the sizes users=N items=N")


def _request(plan: PlanConfig, overrides: list[str]) -> Request:
    config, _ = load_run_config(overrides)
    config.embeddings.check_device(plan.device)
    if plan.items is not None:
        return Request(plan, overrides, config, stated_schema(plan, config))
    schema = Schema.load(config.data.path)
    task_of(config).check_data(config, schema)
    return Request(plan, overrides, config, schema)


def stated_schema(plan: PlanConfig, config: RunConfig) -> Schema:
    """Return the schema of data with the stated sizes, in the form that the task of the model reads.

    Raises:
        ConfigError: Users or columns are stated that this form does not have, or users are missing.
    """
    items, form = cast(int, plan.items), TASKS[config.model.kind.task].data_form
    if form == "sequences" and plan.users is not None:
        raise ConfigError(f"users = {plan.users}: sequential models have no table of users; state items only")
    if form != "sequences" and plan.users is None:
        raise ConfigError(_BOTH)
    if form != "labels" and (plan.columns or plan.dense_columns):
        raise ConfigError("columns, dense_columns: are columns of labelled examples, of click-through rate models")
    if form == "sequences":
        halves = ((INPUT, plan.sequence_length), (TARGET, 1))
        columns = [
            Categorical(name, items, items, "item", sequence=True, table="item_id", max_length=length)
            for name, length in halves
        ]
        return Schema("stated sizes", None, tuple(columns), (), {})
    sizes = {"user_id": cast(int, plan.users), "item_id": items, **(plan.columns or {})}
    roles = {"user_id": "user", "item_id": "item"}
    columns = [Categorical(name, size, size, cast(Any, roles.get(name, "feature"))) for name, size in sizes.items()]
    dense = tuple(Dense(f"dense_{number}", 0.0, 1.0) for number in range(plan.dense_columns))
    label = "label" if form == "labels" else None
    return Schema("stated sizes", label, tuple(columns), dense, {}, implicit=form == "positives")
