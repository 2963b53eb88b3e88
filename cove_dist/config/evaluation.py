"""The settings of evaluation that every task has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, TypeVar

from cove_dist.config.base import settings
from cove_dist.config.checks import Component, target
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import families_of, names_of
from cove_dist.types import Cutoff

T = TypeVar("T")


@settings
class EvaluationConfig:
    """The k of ranking metrics, and metrics of one's own.

    A task with further settings of evaluation derives its section from this one.
    """

    ndcg_at: tuple[Cutoff, ...]
    hit_rate_at: tuple[Cutoff, ...]
    metrics: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def own(self, base: type[T]) -> list[Component[T]]:
        """Return the further metrics; importing their classes declares their names and directions.

        Args:
            base: Base class of the task's metrics.

        Raises:
            ConfigError: A class is not such a metric, declares no name, or an argument is wrong.
        """
        sections = {f"evaluation.metrics.{name}": section for name, section in self.metrics.items() if section}
        found = [Component.resolve(base, section, key, "metric") for key, section in sections.items()]
        for each in found:
            if len(families_of(each.kind)) != 1:
                raise ConfigError(
                    f"{each.key}._target_ = {each.kind.__module__}.{each.kind.__name__}: declares no name and"
                    " direction; decorate the class with @declares(Family(...)) of cove_dist.evaluation.declarations"
                )
        return found

    def names_of(self, *metrics: type) -> list[str]:
        """Return the names that metric classes declare, for these k."""
        return [name for metric in metrics for name in names_of(metric, self.ndcg_at, self.hit_rate_at)]


def declare_metrics(config: Mapping[str, Any]) -> list[str]:
    """Import the further metrics of a run's configuration, so that their names and directions are known.

    Args:
        config: Configuration of a run as plain values.

    Returns:
        Why classes were not imported, a message each: their metrics have no direction and no title.
    """
    messages = []
    for name, section in ((config.get("evaluation") or {}).get("metrics") or {}).items():
        try:
            target(section or {}, f"evaluation.metrics.{name}")
        except ConfigError as error:
            messages.append(str(error))
    return messages
