"""The sections that runs of one task have and others have not."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt, Le

from cove_dist.config.base import settings
from cove_dist.types import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitInterval


@settings
class NegativesConfig:
    """Negative sampling of collaborative filtering."""

    count: PositiveInt
    source: Literal["uniform", "popularity", "in_batch"]
    power: NonNegativeFloat
    hardest_of: PositiveInt
    hardest_share: UnitInterval
    category_share: UnitInterval
    category_codes: Literal["kmeans", "quantizer", "random"]
    category_count: PositiveInt
    category_level: int


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
