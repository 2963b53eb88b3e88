"""Settings that would do nothing in a run are refused: the mechanism, and the rules for the settings of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig

from cove_dist.config.messages import shown
from cove_dist.config.overrides import flat
from cove_dist.config.run import RunConfig
from cove_dist.config.yaml_files import plain
from cove_dist.errors import ConfigError

LEVELS = ("quantizer.user_levels", "quantizer.item_levels")

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class Rule(Generic[C]):
    """A condition on which settings act.

    Attributes:
        keys: Dotted keys, or patterns of them.
        acts: Whether they act in a run, by its configuration.
        why: Why they do not otherwise, and what to set.
        like: A section whose value of the same name is harmless too: one rate may be given to all parameters at once.
    """

    keys: tuple[str, ...]
    acts: Callable[[C], bool]
    why: str
    like: str | None = None

    def covers(self, key: str) -> bool:
        """Return whether the rule is about a key."""
        return key not in LEVELS and any(fnmatchcase(key, pattern) for pattern in self.keys)


def is_quantized(config: RunConfig) -> bool:
    """Return whether users or items are quantized."""
    return bool(config.quantizer.levels())


def _codebooks_change(config: RunConfig) -> bool:
    """Return whether codebooks that no task trains differ from random ones at some time of the run."""
    quantizer, warm = config.quantizer, config.warm_start.run is not None
    return quantizer.omega_q > 0 or quantizer.start == "kmeans" or quantizer.revive_every is not None or warm


def codebooks_learn(config: RunConfig) -> bool:
    """Return whether codebooks differ from random ones at some time of the run."""
    quantizer = config.quantizer
    by_task = quantizer.alpha > 0 and quantizer.codebook_gradient == "task_and_quantization"
    return by_task or quantizer.learning == "ema" or _codebooks_change(config)


def _has_dense_parameters(config: RunConfig) -> bool:
    learned = is_quantized(config) and config.quantizer.learning == "gradient"
    return learned or config.model.kind.has_parameters


RULES: tuple[Rule[RunConfig], ...] = (
    Rule(
        ("trainer.precision",),
        lambda config: config.model.kind.uses_precision,
        "this model has no large matrix products and computes in float32",
    ),
    Rule(
        ("trainer.compile",),
        lambda config: config.model.kind.compiles,
        "only the dense heads of click-through rate models are compiled",
    ),
    Rule(
        ("trainer.profile.steps",),
        lambda config: config.trainer.profile.after is not None,
        "acts with trainer.profile.after, the number of steps before the first one of the trace",
    ),
    Rule(
        ("trainer.on_logger_error",),
        lambda config: any(config.trainer.loggers.values()),
        "there are no loggers; choose some by logger=[tensorboard]",
    ),
    Rule(
        ("embeddings.unseen",),
        is_quantized,
        "there are no codes; acts with a quantizer of users or items, quantizer=cove",
    ),
    Rule(
        ("trainer.gradient_clip_norm",),
        lambda config: not config.embeddings.optimizer.is_sparse,
        "gradients of tables are not clipped under sparse_adam and sparse_rmsprop; choose adam for them",
    ),
    Rule(
        ("trainer.optimizer.*",),
        _has_dense_parameters,
        "this model has no parameters but its tables; set embeddings.optimizer.*",
        like="embeddings.optimizer",
    ),
    Rule(
        ("trainer.schedule.epochs", "trainer.schedule.steps"),
        lambda config: config.trainer.schedule.name != "constant",
        "acts with trainer.schedule.name=linear or cosine",
    ),
    Rule(
        ("embeddings.optimizer.weight_decay_rows", "embeddings.optimizer.weight_decay_frequency_power"),
        lambda config: config.embeddings.optimizer.weight_decay > 0,
        "acts with embeddings.optimizer.weight_decay above 0",
    ),
    Rule(("quantizer.*",), is_quantized, "nothing is quantized; choose quantizer=cove or quantizer=cove_items"),
    Rule(
        ("quantizer.ema_decay",), lambda config: config.quantizer.learning == "ema", "acts with quantizer.learning=ema"
    ),
    Rule(
        ("quantizer.codebook_gradient",),
        lambda config: config.quantizer.learning == "gradient",
        "no gradient reaches codebooks that are moving averages; acts with quantizer.learning=gradient",
    ),
    Rule(
        ("quantizer.codebook_gradient",),
        lambda config: config.quantizer.alpha > 0,
        "with quantizer.alpha=0 codes are not added to the embeddings, so the task has no gradient for codebooks",
    ),
    Rule(
        ("quantizer.beta", "quantizer.loss_reduction"),
        lambda config: config.quantizer.omega_q > 0,
        "with quantizer.omega_q=0 there is no quantization loss; acts with quantizer.omega_q above 0",
    ),
    Rule(
        ("quantizer.omega_q", "quantizer.loss_reduction"),
        lambda config: (
            config.quantizer.learning == "gradient" or config.quantizer.beta > 0 or config.quantizer.omega_q == 0
        ),
        "with quantizer.learning=ema the quantization loss has the gradient of its commitment term only; acts with"
        " quantizer.beta above 0",
    ),
    Rule(
        ("quantizer.codebook_gradient",),
        _codebooks_change,
        "with quantizer.omega_q=0 no gradient would reach the codebooks, which would stay random; acts with"
        " quantizer.omega_q above 0",
    ),
    Rule(("warm_start.*",), lambda config: config.warm_start.run is not None, "acts with warm_start.run"),
    Rule(
        ("warm_start.fold_in_*",),
        lambda config: config.warm_start.new_rows == "fold_in",
        "acts with warm_start.new_rows=fold_in",
    ),
    Rule(
        ("quantizer.kmeans_step", "quantizer.kmeans_batches"),
        lambda config: config.quantizer.start == "kmeans",
        "acts with quantizer.start=kmeans",
    ),
)


def refuse_idle(
    config: RunConfig,
    composed: DictConfig,
    defaults: Mapping[str, Any],
    rules: Sequence[Rule[Any]],
    there: Mapping[str, Any],
) -> None:
    """Refuse settings that would not act.

    Args:
        config: Configuration to check.
        composed: The same, as composed.
        defaults: Composition of the same groups without further overrides.
        rules: Rules of the task, which come after those of every task.
        there: Composition of the run that is in the folder, whose values are accepted; empty if there is none.

    Raises:
        ConfigError: One line per key, with its value, the reason, and its default, which is allowed.
    """
    values, usual, accepted = flat(plain(composed)), flat(defaults), flat(there)
    every: list[Rule[Any]] = [*RULES, *rules]
    lines = []
    for key, value in values.items():
        section = key.rpartition(".")[0]
        default = usual.get(key, usual.get(section, value))  # of a section that is null by default
        if value == default or (key in accepted and value == accepted[key]):
            continue
        for rule in every:
            if rule.covers(key) and not rule.acts(config) and not _is_like(rule, key, value, values):
                allowed = shown(default) if key in usual else f"{section}={shown(default)}"
                lines.append(f"{key} = {shown(value)}: would do nothing: {rule.why}; allowed: {allowed}")
                break
    if lines:
        raise ConfigError("\n".join(lines))


def _is_like(rule: Rule[Any], key: str, value: Any, values: dict[str, Any]) -> bool:
    return rule.like is not None and values.get(f"{rule.like}.{key.rpartition('.')[2]}") == value
