"""How a run is trained: batches, optimizer, stopping, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cove_dist.config.base import settings
from cove_dist.config.embeddings import OptimizerConfig
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import direction
from cove_dist.types import NonNegativeInt, PositiveFloat, PositiveInt

# Keys that a resumed run may change, as patterns. All act from the resumed step on; none changes what the steps so far
# mean, or which values of the early-stopping metric are compared. The first ones change what is learned, the second
# ones cannot change a metric, and are no reason to train a cell of a grid again.
TRAINER_LEARNING = (
    "trainer.optimizer.learning_rate",
    "trainer.warmup_steps",
    "trainer.schedule.*",
    "trainer.gradient_clip_norm",
)
TRAINER_WITHOUT_EFFECT = (
    "trainer.early_stopping.mode",  # null and the metric's direction mean the same
    "trainer.log_every",
    "trainer.check_replicas_every",
    "trainer.checkpoint.*",
    "trainer.timeout_seconds",
    "trainer.on_disk_full",
    "trainer.loggers*",
    "trainer.on_logger_error",
    "trainer.profile.*",
    "trainer.workers",
    "trainer.evaluation_batch_size",
)
TRAINER_RESUMABLE = (
    *TRAINER_LEARNING,
    *TRAINER_WITHOUT_EFFECT,
    "trainer.epochs",
    "trainer.max_steps",
    "trainer.early_stopping.patience",
    "trainer.on_nan",
    "trainer.compile",  # as the device, by rounding
    "trainer.device",
)


@settings
class CheckpointConfig:
    every_steps: PositiveInt | None
    every_minutes: PositiveFloat | None
    keep: PositiveInt
    resume: Literal["no", "auto"]


@settings
class EarlyStoppingConfig:
    """Which metric of the validation split is watched; its own direction says what is better.

    ``mode`` may be null; otherwise it must be the direction of the metric.
    """

    metric: str
    mode: Literal["max", "min"] | None
    patience: PositiveInt | None

    def check(self, allowed: Sequence[str], where: str) -> None:
        """Refuse a metric that is not there, and a mode that takes its worst value for the best.

        Raises:
            ConfigError: With what is allowed.
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
class ScheduleConfig:
    """How the learning rates of all parameters fall after the warm-up; with neither end given, by the last step."""

    name: Literal["constant", "linear", "cosine"]
    epochs: PositiveInt | None
    steps: PositiveInt | None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs = {self.epochs}: not together with steps = {self.steps}; allowed: null")

    def end(self, steps_per_epoch: int, steps: int) -> int:
        """Return the number of steps after which the rates are 0.

        Args:
            steps_per_epoch: Number of steps of an epoch.
            steps: Number of steps of the training.
        """
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        return steps if self.steps is None else self.steps


@settings
class ProfileConfig:
    """Which steps `torch.profiler` records."""

    after: NonNegativeInt | None
    steps: PositiveInt


@settings
class TrainerConfig:
    device: Literal["auto", "cpu", "cuda"]
    epochs: PositiveInt
    max_steps: PositiveInt | None
    batch_size: PositiveInt
    accumulate_steps: PositiveInt
    evaluation_batch_size: PositiveInt
    optimizer: OptimizerConfig
    warmup_steps: NonNegativeInt
    schedule: ScheduleConfig
    gradient_clip_norm: PositiveFloat | None
    precision: Literal["float32", "bfloat16"]
    workers: NonNegativeInt
    shuffle_buffer: PositiveInt
    log_every: PositiveInt
    check_replicas_every: PositiveInt
    early_stopping: EarlyStoppingConfig
    checkpoint: CheckpointConfig
    timeout_seconds: PositiveFloat
    on_nan: Literal["stop", "skip"]
    on_disk_full: Literal["stop", "warn"]
    debug: bool

    loggers: dict[str, dict[str, Any] | None]
    on_logger_error: Literal["warn", "stop"]
    profile: ProfileConfig
    compile: bool
    validate_every_steps: PositiveInt | None = None
    validate_every_minutes: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if self.debug and self.profile.after is not None:
            raise ValueError(f"profile.after = {self.profile.after}: not with debug=true, which writes no files")
        if self.optimizer.name not in ("adam", "adagrad", "sgd"):
            raise ValueError(f"optimizer.name = {self.optimizer.name}: is for tables only; allowed: adam, adagrad, sgd")
        if self.accumulate_steps > 1 and (self.debug or self.on_nan == "skip"):
            other = "debug=true" if self.debug else "on_nan=skip, which leaves out the update of a whole step"
            raise ValueError(f"accumulate_steps = {self.accumulate_steps}: not with {other}; allowed: 1")
        if self.debug and self.on_nan == "skip":
            raise ValueError("on_nan = skip: not with debug=true, which looks for the cause; allowed: stop")
        if self.debug and self.checkpoint.resume == "auto":
            raise ValueError("checkpoint.resume = auto: not with debug=true, which writes no checkpoints; allowed: no")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the training, unless it stops early."""
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def rank_evaluation_batch_size(self, world_size: int) -> int:
        return -(-self.evaluation_batch_size // world_size)

    def rank_batch_size(self, world_size: int) -> int:
        """Return the rows per rank; ``batch_size`` counts rows of all ranks, so results do not depend on their number.

        Raises:
            ConfigError: It does not divide among the ranks.
        """
        if self.batch_size % world_size:
            raise ConfigError(
                f"trainer.batch_size = {self.batch_size}: counts rows over all ranks and must be divisible by the"
                f" {world_size} ranks; nearest allowed: {max(1, self.batch_size // world_size) * world_size}"
            )
        return self.batch_size // world_size
