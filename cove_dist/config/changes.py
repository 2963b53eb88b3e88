"""What it means that a setting of a run changes: patterns of dotted keys, of all sections."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cove_dist.config.quantizer import QUANTIZER_RESUMABLE, QUANTIZER_WITHOUT_EFFECT
from cove_dist.config.trainer import TRAINER_LEARNING, TRAINER_RESUMABLE, TRAINER_WITHOUT_EFFECT

# Of keys that a resumed run may change: those that change what it learns
LEARNING_PATTERNS = (*TRAINER_LEARNING, "embeddings.optimizer.learning_rate")
# and those that cannot change the metrics of a run, whenever they change
WITHOUT_EFFECT_PATTERNS = (*TRAINER_WITHOUT_EFFECT, *QUANTIZER_WITHOUT_EFFECT, "output")  # a run folder may be moved
RESUMABLE_PATTERNS = (
    *TRAINER_RESUMABLE,
    "embeddings.optimizer.learning_rate",
    "output",
    "evaluation.ndcg_at",
    "evaluation.hit_rate_at",
    "evaluation.rank_*",
    "evaluation.metrics*",
    *QUANTIZER_RESUMABLE,
)


def changes_learning(key: str) -> bool:
    """Return whether a resumed run that changes the setting learns otherwise from then on."""
    return matches(key, LEARNING_PATTERNS)


def has_effect(key: str) -> bool:
    """Return whether the setting can change the metrics of a run."""
    return not matches(key, WITHOUT_EFFECT_PATTERNS)


def matches(key: str, patterns: Sequence[str]) -> bool:
    """Return whether a key is one of those that patterns describe."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)
