"""Builds the quantizers of a configuration."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, Mapping
from typing import TYPE_CHECKING

from torch import nn

from cove_dist.config import RunConfig
from cove_dist.quantization import CascadedQuantizer
from data_pipeline.schema import Entity, Schema

logger = logging.getLogger(__name__)


class EntityQuantizers(nn.ModuleDict):
    """Quantizers by entity, ``user`` and ``item``: a `torch.nn.ModuleDict` that knows the type of its values."""

    if TYPE_CHECKING:

        def __init__(self, quantizers: Mapping[Entity, CascadedQuantizer]) -> None: ...

        def __getitem__(self, key: str) -> CascadedQuantizer: ...

        def items(self) -> ItemsView[Entity, CascadedQuantizer]: ...


def build_quantizers(config: RunConfig, rows_per_id: int = 1) -> dict[Entity, CascadedQuantizer]:
    """Build quantizers by entity, ``user`` and ``item``, for table rows of ``rows_per_id * embeddings.dim`` numbers.

    Initialized from torch's global generator.
    """
    settings = config.quantizer
    return {
        entity: CascadedQuantizer(
            dim=rows_per_id * config.embeddings.dim,
            levels=levels,
            init_std=settings.init_std or config.embeddings.init_std,
            **settings.arguments(),
        )
        for entity, levels in settings.levels().items()
    }


def mention_idle_codes(config: RunConfig, schema: Schema) -> None:
    """Warn of more codes than ids: some codes are then in no use, and nothing is compressed."""
    for entity, levels in config.quantizer.levels().items():
        column = schema.entity(entity)
        if max(levels) > column.num_seen:
            logger.warning(
                "quantizer.%s_levels = %s: %d codes for the %d ids of %s in the training split; give fewer than ids",
                entity, list(levels), max(levels), column.num_seen, column.name,
            )  # fmt: skip
