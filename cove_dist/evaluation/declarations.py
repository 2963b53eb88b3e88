"""Names and directions of metrics, declared once by the classes that compute them.

A metric class lists the families of its metrics with `declares`; all other name lists and directions derive from
these. A full name, as in metrics files, is ``[full_]FAMILY[@K][/ENTITY_GROUP]``: ``full_ndcg@10`` ranks all
items, ``auc/item_q1`` covers only the rows of rare items.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from cove_dist.errors import ConfigError

FULL_PREFIX = "full_"
Direction = Literal["max", "min"]
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Family:
    """Metrics that differ only in their cutoff k.

    Attributes:
        name: Name without k, as in ``ndcg``.
        title: Display name, as in ``NDCG``.
        at: Setting that lists its k; None if it has no k.
        higher_is_better: Whether larger values are better.
    """

    name: str
    title: str
    at: Literal["ndcg_at", "hit_rate_at"] | None = None
    higher_is_better: bool = True

    @property
    def form(self) -> str:
        """The form of its names: ``auc``, or ``ndcg@K``."""
        return self.name if self.at is None else f"{self.name}@K"

    def names(self, ndcg_at: Sequence[int], hit_rate_at: Sequence[int]) -> list[str]:
        """Return its names: one without k, or one for every k of its setting."""
        if self.at is None:
            return [self.name]
        return [f"{self.name}@{k}" for k in (ndcg_at if self.at == "ndcg_at" else hit_rate_at)]


NDCG = Family("ndcg", "NDCG", "ndcg_at")
HIT_RATE = Family("hr", "HR", "hit_rate_at")
RECALL = Family("recall", "recall", "hit_rate_at")

_FAMILIES: dict[str, Family] = {}  # by form
_OF_CLASS: dict[type, tuple[Family, ...]] = {}


def declares(*families: Family) -> Callable[[C], C]:
    """Declare the families of a metric class, which registers their names and directions.

    Raises:
        ValueError: Another class declares a family of the same form differently.
    """
    for family in families:
        if _FAMILIES.setdefault(family.form, family) != family:
            raise ValueError(f"{family.form}: declared as {_FAMILIES[family.form]} and as {family}")

    def mark(metric: C) -> C:
        _OF_CLASS[metric] = families
        return metric

    return mark


def families_of(metric: type) -> tuple[Family, ...]:
    """Return the families that a metric class declares; none where it declares nothing."""
    return _OF_CLASS.get(metric, ())


def names_of(metric: type, ndcg_at: Sequence[int], hit_rate_at: Sequence[int]) -> list[str]:
    """Return the names that a metric class declares, for these k."""
    return [name for family in families_of(metric) for name in family.names(ndcg_at, hit_rate_at)]


def family_of(name: str) -> Family | None:
    """Return the family of a metric by its full name; None for other values, such as counts."""
    bare, _, k = name.split("/")[0].removeprefix(FULL_PREFIX).partition("@")
    return _FAMILIES.get(f"{bare}@K" if k.isdecimal() else bare if not k else name)


def is_metric(name: str) -> bool:
    """Return whether a name is that of a metric with a direction, not a count or a bound."""
    return family_of(name) is not None


def check_metrics(key: str, names: Iterable[str]) -> None:
    """Check that metrics of these names exist.

    Raises:
        ConfigError: A name is unknown; states the key, the name and the allowed names.
    """
    for name in names:
        if not is_metric(name):
            near = difflib.get_close_matches(name, _FAMILIES, n=1)
            hint = f" did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{key} = {name}: no such metric;{hint} allowed are {', '.join(sorted(_FAMILIES))}")


def higher_is_better(name: str) -> bool:
    """Return the direction of a metric by its full name.

    Raises:
        ConfigError: No metric has this name.
    """
    check_metrics("metric", [name])
    return bool((family := family_of(name)) and family.higher_is_better)


def direction(name: str) -> Direction:
    """Return ``max`` or ``min``, the best of a metric's values.

    Raises:
        ConfigError: No metric has this name.
    """
    return "max" if higher_is_better(name) else "min"


def title(name: str) -> str:
    """Return a metric's display name: ``full_ndcg@10`` is "NDCG@10, all items". Other names are unchanged."""
    family = family_of(name)
    if family is None:
        return name
    bare, _, group = name.partition("/")
    k = bare.partition("@")[2]
    parts = [family.title + (f"@{k}" if k else "")]
    parts += ["all items"] if bare.startswith(FULL_PREFIX) else []
    parts += [group.replace("_", " ")] if group else []
    return ", ".join(parts)
