"""Settings of category negatives, the same for every task that has them."""

from __future__ import annotations

from typing import Any, Literal

from cove_dist.config import QuantizerConfig, RunConfig, settings
from cove_dist.config.rules import Rule, codebooks_learn
from cove_dist.errors import ConfigError
from cove_dist.types import PositiveInt, UnitInterval


@settings
class CategoryConfig:
    """Negatives from the category of the positive."""

    category_share: UnitInterval
    category_codes: Literal["kmeans", "quantizer", "data", "random"]
    category_count: PositiveInt
    category_level: int

    @property
    def reads_quantizer(self) -> bool:
        """Whether categories are the codes of the item quantizer."""
        return self.category_share > 0 and self.category_codes == "quantizer"

    def check(self, quantizer: QuantizerConfig) -> None:
        """Refuse codes of a quantizer that does not exist, or of a level that it does not have.

        Raises:
            ConfigError: With the allowed values.
        """
        if self.category_share > 0 and self.category_codes != "quantizer" and self.category_count == 1:
            raise ConfigError(
                "negatives.category_count = 1: one category of all items is uniform sampling; allowed: 2 and more"
            )
        if not self.reads_quantizer:
            return
        levels = quantizer.levels().get("item", ())
        if not levels:
            raise ConfigError(
                "negatives.category_codes = quantizer: items are not quantized; choose quantizer=negatives or another"
                " with item_levels, or negatives.category_codes=kmeans"
            )
        if not -len(levels) <= self.category_level < len(levels):
            raise ConfigError(
                f"negatives.category_level = {self.category_level}: allowed: {-len(levels)} to {len(levels) - 1},"
                f" the indices of quantizer.item_levels = {list(levels)}"
            )
        if quantizer.cascade == "residual" and self.category_level not in (0, -len(levels)):
            raise ConfigError(
                f"negatives.category_level = {self.category_level}: with quantizer.cascade = residual later levels are"
                " not categories of items, but of what the levels before leave; allowed: 0"
            )

    @staticmethod
    def first_epoch(config: RunConfig) -> int:
        """Return the first epoch with categories, from 0: before it the tables of a new run are random."""
        return int(config.warm_start.run is None)

    def late_settings(self, config: RunConfig, steps_per_epoch: int) -> list[str]:
        """Return a warning if a run ends before items have categories; see `Task.late_settings`."""
        steps = config.trainer.total_steps(steps_per_epoch)
        if self.category_share == 0 or steps > self.first_epoch(config) * steps_per_epoch:
            return []
        return [
            f"negatives.category_share = {self.category_share}: training has {steps} steps, and items have categories"
            f" from the second epoch on, after {steps_per_epoch} steps, so that no negatives are drawn by category. Set"
            " more trainer.epochs or trainer.max_steps"
        ]

    def number(self, quantizer: QuantizerConfig) -> int:
        """Return the number of codes."""
        of_quantizer = self.category_codes == "quantizer"
        return quantizer.levels()["item"][self.category_level] if of_quantizer else self.category_count


CATEGORY_RULES: tuple[Rule[Any], ...] = (
    Rule(
        ("negatives.category_*",),
        lambda config: config.negatives.category_share > 0,
        "acts with negatives.category_share above 0",
    ),
    Rule(
        ("negatives.category_codes",),
        lambda config: config.negatives.category_codes != "quantizer" or codebooks_learn(config),
        "with quantizer.alpha=0 and quantizer.omega_q=0 no gradient reaches the codebooks, which stay random, as do the"
        " categories; acts with quantizer.omega_q above 0",
    ),
    Rule(
        ("negatives.category_level",),
        lambda config: config.negatives.category_codes == "quantizer",
        "acts with negatives.category_codes=quantizer",
    ),
    Rule(
        ("negatives.category_count",),
        lambda config: config.negatives.category_codes != "quantizer",
        "acts with negatives.category_codes=kmeans, data or random",
    ),
)
