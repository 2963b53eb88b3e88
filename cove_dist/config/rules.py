"""Rules across the sections of a run: what its task needs and allows, and settings that would do nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cove_dist.config import RunConfig
from cove_dist.config.overrides import flat
from cove_dist.errors import ConfigError
from cove_dist.models.base import Model
from cove_dist.models.sequential.base import SequentialModel

LEVELS = ("quantizer.user_levels", "quantizer.item_levels")


@dataclass(frozen=True)
class Rule:
    """A condition on which settings act.

    Attributes:
        keys: dotted keys, or patterns of them.
        acts: whether they do in a run, by its configuration and the class of its model.
        why: why they do not otherwise, and what to set.
        like: a section whose value of the same name is harmless too: one rate may be given to all parameters at once.
    """

    keys: tuple[str, ...]
    acts: Callable[[RunConfig, type[Model]], bool]
    why: str
    like: str | None = None

    def covers(self, key: str) -> bool:
        return key not in LEVELS and any(fnmatchcase(key, pattern) for pattern in self.keys)


def _is_quantized(config: RunConfig, _: type[Model]) -> bool:
    return bool(config.quantizer.levels())


def _has_dense_parameters(config: RunConfig, model: type[Model]) -> bool:
    learned = _is_quantized(config, model) and config.quantizer.learning == "gradient"
    return learned or model.has_parameters


def _masks_items(_: RunConfig, model: type[Model]) -> bool:
    return issubclass(model, SequentialModel) and model.reads_masked_items


RULES = (
    Rule(
        ("trainer.precision",),
        lambda _, model: model.uses_precision,
        "models of collaborative filtering have no large matrix products and compute in float32",
    ),
    Rule(
        ("trainer.gradient_clip_norm",),
        lambda config, _: not config.embeddings.optimizer.name.startswith("sparse_"),
        "gradients of tables are not clipped under sparse_adam and sparse_rmsprop; choose adam for them",
    ),
    Rule(
        ("trainer.optimizer.*",),
        _has_dense_parameters,
        "this model has no parameters but its tables; set embeddings.optimizer.*",
        like="embeddings.optimizer",
    ),
    Rule(
        ("embeddings.optimizer.weight_decay_rows",),
        lambda config, _: config.embeddings.optimizer.weight_decay > 0,
        "acts with embeddings.optimizer.weight_decay above 0",
    ),
    Rule(("quantizer.*",), _is_quantized, "nothing is quantized; choose quantizer=cove or quantizer=cove_items"),
    Rule(("quantizer.ema_decay",), lambda c, _: c.quantizer.learning == "ema", "acts with quantizer.learning=ema"),
    Rule(
        ("quantizer.codebook_gradient",),
        lambda c, _: c.quantizer.learning == "gradient",
        "no gradient reaches codebooks that are moving averages; acts with quantizer.learning=gradient",
    ),
    Rule(
        ("quantizer.kmeans_step", "quantizer.kmeans_batches"),
        lambda c, _: c.quantizer.start == "kmeans",
        "acts with quantizer.start=kmeans",
    ),
    Rule(
        ("negatives.power",),
        lambda c, _: c.negatives.source == "popularity",
        "acts with negatives.source=popularity",
    ),
    Rule(
        ("negatives.hardest_share",),
        lambda c, _: c.negatives.hardest_of > 1,
        "acts with negatives.hardest_of above 1",
    ),
    Rule(
        ("negatives.category_*",),
        lambda c, _: c.negatives.category_share > 0,
        "acts with negatives.category_share above 0",
    ),
    Rule(
        ("negatives.category_level",),
        lambda c, _: c.negatives.category_codes == "quantizer",
        "acts with negatives.category_codes=quantizer",
    ),
    Rule(
        ("negatives.category_count",),
        lambda c, _: c.negatives.category_codes != "quantizer",
        "acts with negatives.category_codes=kmeans or random",
    ),
    Rule(
        ("sequential.sampled", "sequential.sampled_power"),
        lambda c, _: c.sequential.softmax == "sampled",
        "acts with sequential.softmax=sampled",
    ),
    Rule(("sequential.fuse_output",), _is_quantized, "there are no fused embeddings without a quantizer"),
    Rule(
        ("sequential.mask_share", "sequential.mask_last"),
        _masks_items,
        "this model is not trained on masked items; acts with model=bert4rec",
    ),
    Rule(
        ("sequential.curriculum_steps",),
        lambda _, model: issubclass(model, SequentialModel) and model.decoding == "parallel",
        "this model does not predict all targets at once; acts with model=fans",
    ),
)


def refuse_idle(config: RunConfig, composed: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Refuse settings that would not act.

    Args:
        config: checked.
        composed: the same, as composed.
        defaults: what is composed of the same groups without anything else.

    Raises:
        ConfigError: one line per key, with its value, the reason, and its default, which is allowed.
    """
    model = config.model.kind
    values, usual = flat(OmegaConf.to_container(composed)), flat(defaults)
    lines = []
    for key, value in values.items():
        if key not in usual or value == usual[key]:
            continue
        for rule in RULES:
            if rule.covers(key) and not rule.acts(config, model) and not _is_like(rule, key, value, values):
                lines.append(f"{key} = {value}: would do nothing: {rule.why}; allowed: {usual[key]}")
                break
    if lines:
        raise ConfigError("\n".join(lines))


def _is_like(rule: Rule, key: str, value: Any, values: dict[str, Any]) -> bool:
    return rule.like is not None and values.get(f"{rule.like}.{key.rpartition('.')[2]}") == value
