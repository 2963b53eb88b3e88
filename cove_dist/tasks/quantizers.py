"""The quantizers of a configuration."""

from __future__ import annotations

from cove_dist.config import RunConfig
from cove_dist.quantization import CascadedQuantizer


def build_quantizers(config: RunConfig, rows_per_id: int = 1) -> dict[str, CascadedQuantizer]:
    """By entity, ``user`` and ``item``, for table rows of ``rows_per_id * embeddings.dim`` numbers.

    Initialized from torch's global generator.
    """
    settings = config.quantizer
    return {
        entity: CascadedQuantizer(
            dim=rows_per_id * config.embeddings.dim,
            levels=levels,
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
