"""Optimizers, and the tables: their size, start, optimizer and sharding."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cove_dist.config.base import settings
from cove_dist.errors import ConfigError
from cove_dist.types import NonNegativeFloat, PositiveFloat, PositiveInt, PositiveShare, Probability

Sharding = Literal[
    "auto", "data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard"
]  # fmt: skip
ROWS_WITHIN_HOSTS = ("table_row_wise", "grid_shard")

_FUSED_ON_CPU = ("sgd", "adagrad", "rowwise_adagrad")


@settings
class OptimizerConfig:
    name: Literal["adam", "sparse_adam", "sparse_rmsprop", "adagrad", "rowwise_adagrad", "sgd"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat


@settings
class TableOptimizerConfig(OptimizerConfig):
    weight_decay_rows: Literal["all", "looked_up"]
    weight_decay_frequency_power: NonNegativeFloat

    def __post_init__(self) -> None:
        if self.is_sparse and self.weight_decay and self.weight_decay_rows == "all":
            raise ValueError(
                f"weight_decay_rows = all: {self.name} changes only the rows that a step looks up; with weight_decay ="
                f" {self.weight_decay} allowed: looked_up"
            )
        power = self.weight_decay_frequency_power
        if power and self.name == "sgd" and self.weight_decay_rows == "looked_up":
            raise ValueError(
                f"weight_decay_frequency_power = {power}: not with sgd and weight_decay_rows = looked_up, whose decay"
                " compounds by the same factor for all rows; allowed: 0, or weight_decay_rows = all"
            )
        too_large = self.learning_rate * self.weight_decay >= 1
        if self.name == "sgd" and self.weight_decay_rows == "looked_up" and too_large:
            raise ValueError(
                f"weight_decay = {self.weight_decay}: must be below 1 / learning_rate = {1 / self.learning_rate}, or"
                " rows would change their sign"
            )

    @property
    def is_sparse(self) -> bool:
        """Whether a step changes only the rows that it looks up."""
        return self.name.startswith("sparse_")

    def is_fused_on(self, device_type: str) -> bool:
        """Return whether fbgemm has a kernel that applies this optimizer to sharded tables in the backward pass."""
        fused = self.name != "sparse_rmsprop" if device_type == "cuda" else self.name in _FUSED_ON_CPU
        return fused and self.weight_decay == 0


@settings
class EmbeddingsConfig:
    dim: PositiveInt
    init_std: PositiveFloat
    id_dropout: Probability
    unseen: Literal["row", "codes"]
    optimizer: TableOptimizerConfig
    sharding: dict[str, Sharding]
    cache_load_factor: PositiveShare | None = None

    def __post_init__(self) -> None:
        if self.dim % 4:
            raise ValueError(f"dim = {self.dim}: allowed are multiples of 4 (fbgemm stores rows in fours)")
        if "default" not in self.sharding:
            raise ValueError("sharding: needs the key 'default'; further keys are table names")
        if self.unseen == "codes" and self.id_dropout:
            raise ValueError(
                f"unseen = codes: not with id_dropout = {self.id_dropout}, which trains that row; allowed: row"
            )

    def check_device(self, device_type: str) -> None:
        """Refuse a sharding or a cache that does not exist on this device, or that the table optimizer cannot serve.

        Raises:
            ConfigError: With the ways out.
        """
        self._check_sparse(device_type)
        if device_type == "cpu":
            self._refuse_gpu_memory()
        if self.cache_load_factor is not None and not self.is_any_sharded(device_type):
            raise ConfigError(
                f"embeddings.cache_load_factor = {self.cache_load_factor}: caches the rows of sharded tables, and all"
                " tables are data-parallel here; allowed: null, or an optimizer and a sharding of sharded tables"
            )
        sharded = {t: s for t, s in self.sharding.items() if s not in ("auto", "data_parallel")}
        if not sharded or self.optimizer.is_fused_on(device_type):
            return
        table, sharding = next(iter(sharded.items()))
        reason = f"weight_decay = {self.optimizer.weight_decay}" if self.optimizer.weight_decay else self.optimizer.name
        names = "any name but sparse_rmsprop" if device_type == "cuda" else f"one of {', '.join(_FUSED_ON_CPU)}"
        allowed = f"embeddings.optimizer.name={names}"
        raise ConfigError(
            f"embeddings.sharding.{table} = {sharding}: a sharded table is updated by a fused kernel, and on"
            f" {device_type} there is none for embeddings.optimizer with {reason}. Either set"
            f" embeddings.sharding.{table}=data_parallel, or choose {allowed} with weight_decay=0"
        )

    def read_only(self, device_type: str) -> EmbeddingsConfig:
        """Return the settings for tables that nothing updates, which every device accepts.

        Their sharding stays where the device has it. On CPU tables that training replicates stay replicated, as their
        look-ups are the fast ones.
        """
        replicated = device_type == "cpu" and not self.optimizer.is_fused_on("cpu")
        sharding: dict[str, Sharding] = {
            table: "data_parallel" if replicated and chosen == "auto" else chosen
            for table, chosen in self.sharding.items()
        }
        if device_type == "cpu":
            sharding |= {table: "auto" for table, chosen in sharding.items() if chosen in ROWS_WITHIN_HOSTS}
        return replace(
            self,
            optimizer=replace(self.optimizer, name="sgd", weight_decay=0.0, weight_decay_frequency_power=0.0),
            sharding=sharding,
            cache_load_factor=None if device_type == "cpu" else self.cache_load_factor,
        )

    def is_any_sharded(self, device_type: str) -> bool:
        """Return whether tables may be sharded on a device."""
        chosen = set(self.sharding.values())
        return bool(chosen - {"data_parallel", "auto"}) or (
            "auto" in chosen and self.optimizer.is_fused_on(device_type)
        )

    def _refuse_gpu_memory(self) -> None:
        """Refuse what needs the memory of GPUs."""
        for table, sharding in self.sharding.items():
            if sharding in ROWS_WITHIN_HOSTS:
                raise ConfigError(
                    f"embeddings.sharding.{table} = {sharding}: divides rows among the GPUs of a host, by collectives"
                    " that TorchRec has on cuda only; on cpu allowed: auto, data_parallel, table_wise, row_wise,"
                    " column_wise"
                )
        if self.cache_load_factor is not None:
            raise ConfigError(
                f"embeddings.cache_load_factor = {self.cache_load_factor}: keeps tables in host memory and caches rows"
                " in GPU memory; on cpu tables are in host memory as they are; allowed: null"
            )

    def _check_sparse(self, device_type: str) -> None:
        """Refuse what a fused kernel, which is what a sparse optimizer is on cuda, does not do."""
        if device_type == "cpu" or not self.optimizer.is_sparse:
            return
        name, decay = self.optimizer.name, self.optimizer.weight_decay
        if decay:
            raise ConfigError(
                f"embeddings.optimizer.weight_decay = {decay}: on {device_type} {name} is a fused kernel, which cannot"
                " scale the decay of a row by its look-ups; allowed: 0, or embeddings.optimizer.name=adam"
            )
        for table, sharding in self.sharding.items():
            if sharding == "data_parallel":
                raise ConfigError(
                    f"embeddings.sharding.{table} = data_parallel: on {device_type} {name} is a fused kernel of sharded"
                    " tables; allowed: auto, table_wise, row_wise, column_wise"
                )
