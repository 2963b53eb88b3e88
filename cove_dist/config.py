"""Everything a run needs, typed. The values are in ``configs/``; here are their types, ranges and cross-field rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, Lt
from pydantic import ConfigDict, InstanceOf
from pydantic.dataclasses import dataclass

from cove_dist.errors import ConfigError
from cove_dist.evaluation import metric_names
from cove_dist.evaluation.declarations import FULL_PREFIX, direction
from cove_dist.evaluation.protocol import Group, Protocol, check_protocol, protocol_of
from cove_dist.model_spec import ModelSpec
from cove_dist.types import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
    UnitInterval,
)
from data_pipeline.schema import Schema

Ranking = Literal["sampled", "full"]
RANKING_PREFIX: dict[Ranking, str] = {"sampled": "", "full": FULL_PREFIX}
Sharding = Literal["auto", "data_parallel", "table_wise", "row_wise", "column_wise"]
settings = partial(dataclass, frozen=True, config=ConfigDict(extra="forbid"))

_FUSED_ON_CPU = ("sgd", "adagrad", "rowwise_adagrad")


@settings
class OptimizerConfig:
    name: Literal["adam", "sparse_adam", "sparse_rmsprop", "adagrad", "rowwise_adagrad", "sgd"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat


@settings
class TableOptimizerConfig(OptimizerConfig):
    weight_decay_rows: Literal["all", "looked_up"] = "all"  # default for configs saved before this key existed

    def __post_init__(self) -> None:
        if self.is_sparse and self.weight_decay and self.weight_decay_rows == "all":
            raise ValueError(
                f"weight_decay_rows = all: {self.name} changes only the rows that a step looks up; with weight_decay ="
                f" {self.weight_decay} allowed: looked_up"
            )
        too_large = self.learning_rate * self.weight_decay >= 1
        if self.name == "sgd" and self.weight_decay_rows == "looked_up" and too_large:
            raise ValueError(
                f"weight_decay = {self.weight_decay}: must be below 1 / learning_rate = {1 / self.learning_rate}, or"
                " rows would change their sign"
            )

    @property
    def is_sparse(self) -> bool:
        """Whether a step changes the rows that it looks up and no others."""
        return self.name.startswith("sparse_")

    def is_fused_on(self, device_type: str) -> bool:
        """Whether fbgemm has a kernel that applies this optimizer to sharded tables in the backward pass."""
        fused = self.name != "sparse_rmsprop" if device_type == "cuda" else self.name in _FUSED_ON_CPU
        return fused and self.weight_decay == 0


@settings
class EmbeddingsConfig:
    dim: PositiveInt
    init_std: PositiveFloat
    optimizer: TableOptimizerConfig
    sharding: dict[str, Sharding]

    def __post_init__(self) -> None:
        if self.dim % 4:
            raise ValueError(f"dim = {self.dim}: allowed are multiples of 4 (fbgemm stores rows in fours)")
        if "default" not in self.sharding:
            raise ValueError("sharding: needs the key 'default'; further keys are table names")

    def check_device(self, device_type: str) -> None:
        """Refuse a sharding that the table optimizer cannot serve on this device.

        Raises:
            ConfigError: with both ways out.
        """
        self._check_sparse(device_type)
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


@settings
class QuantizerConfig:
    user_levels: tuple[PositiveInt, ...] | None
    item_levels: tuple[PositiveInt, ...] | None
    alpha: UnitInterval
    beta: UnitInterval
    omega_q: UnitInterval
    omega_c: UnitInterval
    loss_reduction: Literal["mean", "sum"]
    codebook_gradient: Literal["task_and_quantization", "quantization"]
    learning: Literal["gradient", "ema"]
    ema_decay: Annotated[float, Gt(0), Lt(1)]
    start: Literal["random", "kmeans"]
    kmeans_step: PositiveInt
    kmeans_batches: PositiveInt
    init_std: PositiveFloat | None
    revive_every: PositiveInt | None
    warn_perplexity: UnitInterval
    search: Literal["auto", "chunked", "compiled", "faiss", "triton", "triton_tf32x3"]

    def __post_init__(self) -> None:
        for key in ("user_levels", "item_levels"):
            levels = getattr(self, key)
            if levels is not None and (not levels or any(a <= b for a, b in pairwise(levels))):
                raise ValueError(
                    f"{key} = {list(levels)}: allowed are strictly falling sizes, fine to coarse, such as [100, 10]"
                )

    def levels(self) -> dict[str, tuple[int, ...]]:
        """The levels of every entity that is quantized."""
        levels = {"user": self.user_levels, "item": self.item_levels}
        return {entity: sizes for entity, sizes in levels.items() if sizes is not None}


@settings
class CheckpointConfig:
    every_steps: PositiveInt | None
    keep: PositiveInt
    resume: Literal["no", "auto"]


@settings
class EarlyStoppingConfig:
    """Which metric of the validation split is watched; its own direction says what is better.

    ``mode`` need not be given. It was once the direction, and is refused where it contradicts the metric.
    """

    metric: str
    mode: Literal["max", "min"] | None
    patience: PositiveInt | None

    def check(self, allowed: Sequence[str], where: str) -> None:
        """Refuse a metric that is not there, and a mode that takes its worst value for the best.

        Raises:
            ConfigError: with what is allowed.
        """
        if self.metric not in allowed:
            raise ConfigError(
                f"trainer.early_stopping.metric = {self.metric}: allowed are {', '.join(allowed)} ({where})"
            )
        own = direction(self.metric)
        if self.mode not in (None, own):
            better = "greater" if own == "max" else "smaller"
            raise ConfigError(
                f"trainer.early_stopping.mode = {self.mode}: a {better} {self.metric} is better; allowed: null, {own}"
            )


@settings
class TrainerConfig:
    device: Literal["auto", "cpu", "cuda"]
    epochs: PositiveInt
    max_steps: PositiveInt | None
    batch_size: PositiveInt
    evaluation_batch_size: PositiveInt
    optimizer: OptimizerConfig
    warmup_steps: NonNegativeInt
    gradient_clip_norm: PositiveFloat | None
    precision: Literal["float32", "bfloat16"]
    workers: NonNegativeInt
    shuffle_buffer: PositiveInt
    log_every: PositiveInt
    check_replicas_every: PositiveInt
    early_stopping: EarlyStoppingConfig
    checkpoint: CheckpointConfig
    debug: bool

    def __post_init__(self) -> None:
        if self.optimizer.name not in ("adam", "adagrad", "sgd"):
            raise ValueError(f"optimizer.name = {self.optimizer.name}: is for tables only; allowed: adam, adagrad, sgd")
        if self.debug and self.checkpoint.resume == "auto":
            raise ValueError("checkpoint.resume = auto: not with debug=true, which writes no checkpoints; allowed: no")

    def rank_evaluation_batch_size(self, world_size: int) -> int:
        return -(-self.evaluation_batch_size // world_size)

    def rank_batch_size(self, world_size: int) -> int:
        """``batch_size`` counts rows over all ranks, so that a result does not depend on their number.

        Raises:
            ConfigError: it does not divide among the ranks.
        """
        if self.batch_size % world_size:
            raise ConfigError(
                f"trainer.batch_size = {self.batch_size}: counts rows over all ranks and must be divisible by the"
                f" {world_size} ranks; nearest allowed: {max(1, self.batch_size // world_size) * world_size}"
            )
        return self.batch_size // world_size


@settings
class DataConfig:
    """Location of the prepared data. Other ``data.*`` keys are only used by ``launch/prepare.py``."""

    name: Text
    path: Text


@settings
class NegativesConfig:
    """What a positive of implicit feedback is told apart from."""

    count: PositiveInt
    source: Literal["uniform", "popularity", "in_batch"]
    power: NonNegativeFloat


@settings
class SequentialConfig:
    """How lists are continued."""

    softmax: Literal["vocabulary_parallel", "full", "sampled"]
    sampled: PositiveInt
    sampled_power: UnitInterval
    fuse_output: bool
    mask_share: Annotated[float, Gt(0), Le(1)]
    mask_last: UnitInterval
    curriculum_steps: NonNegativeInt
    categories: str | None
    two_stage: bool
    item_bias: bool | None = False  # what runs had that do not say

    def __post_init__(self) -> None:
        if self.two_stage and self.softmax == "sampled":
            raise ValueError("two_stage = true: not with softmax = sampled; allowed: vocabulary_parallel, full")


@settings
class EvaluationConfig:
    ndcg_at: tuple[PositiveInt, ...]
    hit_rate_at: tuple[PositiveInt, ...]
    rank_validation: tuple[Ranking, ...] = ("sampled",)
    rank_test: tuple[Ranking, ...] = ("sampled", "full")
    group_by: Group | None = None
    exclude_seen: bool | None = None

    def protocol(self, task: str, schema: Schema) -> Protocol:
        """Resolve how data are ranked; see `cove_dist.evaluation.protocol.protocol_of`."""
        return protocol_of(task, schema, self.group_by, self.exclude_seen)

    def rankings(self, split: str) -> tuple[Ranking, ...]:
        return self.rank_validation if split == "validation" else self.rank_test

    def metrics(self, task: str, split: str = "validation", schema: Schema | None = None) -> list[str]:
        """Return the names of a split's metrics, as metrics files have them.

        Args:
            task: ``ctr``, ``cf`` or ``lists``.
            split: of which.
            schema: of the data; None: the metrics that the task has with any data.
        """
        longest = None if schema is None else schema.longest_target
        return metric_names(task, self.ndcg_at, self.hit_rate_at, self.rankings(split), longest)


@settings
class RunConfig:
    """A run: of the sections ``negatives`` and ``lists`` it has that of its own task, and no other."""

    data: DataConfig
    model: InstanceOf[ModelSpec]
    embeddings: EmbeddingsConfig
    quantizer: QuantizerConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    seed: NonNegativeInt
    output: Text
    negatives: NegativesConfig | None = None
    sequential: SequentialConfig | None = None

    def plain(self) -> dict[str, Any]:
        """Return the settings as nested mappings of plain values, the model as its section."""
        return asdict(self) | {"model": self.model.section}

    def check_evaluation(self, task: str, schema: Schema | None = None) -> None:
        """Refuse to stop by a metric, or to rank by a protocol, that the task does not have, or the data once known.

        Raises:
            ConfigError: naming what is allowed.
        """
        where = f"the task {task}" if schema is None else f"the data {schema.name}"
        self.trainer.early_stopping.check(self.evaluation.metrics(task, schema=schema), where)
        if schema is None:
            check_protocol(task, self.evaluation.group_by, self.evaluation.exclude_seen)
            return
        self.evaluation.protocol(task, schema)
        if task == "cf" and schema.candidates is None:
            self._check_rankings(schema)

    def _check_rankings(self, schema: Schema) -> None:
        """Refuse to rank candidates that the data do not have, those of the test split too: training comes first."""
        lines = [
            f"evaluation.rank_{split} = {list(self.evaluation.rankings(split))}: {schema.name} was prepared without"
            " candidates; allowed: [full], or prepare it with candidates=99"
            for split in ("validation", "test")
            if schema.has_split(split) and "sampled" in self.evaluation.rankings(split)
        ]
        if lines:
            raise ConfigError("\n".join(lines))
