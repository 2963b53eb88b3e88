"""The quantizers of a configuration."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from typing import TYPE_CHECKING

from torch import nn

from cove_dist.config import RunConfig
from cove_dist.quantization import CascadedQuantizer
from data_pipeline.schema import Entity


class EntityQuantizers(nn.ModuleDict):
    """Quantizers by entity, ``user`` and ``item``: a `torch.nn.ModuleDict` that knows the type of its values."""

    if TYPE_CHECKING:

        def __init__(self, quantizers: Mapping[Entity, CascadedQuantizer]) -> None: ...

        def __getitem__(self, key: str) -> CascadedQuantizer: ...

        def items(self) -> ItemsView[Entity, CascadedQuantizer]: ...


def build_quantizers(config: RunConfig, rows_per_id: int = 1) -> dict[Entity, CascadedQuantizer]:
    """By entity, ``user`` and ``item``, for table rows of ``rows_per_id * embeddings.dim`` numbers.

    Initialized from torch's global generator.
    """
    settings = config.quantizer
    return {
        entity: CascadedQuantizer(
            dim=rows_per_id * config.embeddings.dim,
            levels=levels,
            cascade=settings.cascade,
            alpha=settings.alpha,
            beta=settings.beta,
            loss_reduction=settings.loss_reduction,
            codebook_gradient=settings.codebook_gradient,
            learning=settings.learning,
            ema_decay=settings.ema_decay,
            search=settings.search,
            init_std=settings.init_std or config.embeddings.init_std,
        )
        for entity, levels in settings.levels().items()
    }
