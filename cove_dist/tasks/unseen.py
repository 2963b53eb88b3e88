"""``embeddings.unseen=codes``: the table rows of ids that training did not see are the mean of the codes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from cove_dist.config import RunConfig
from cove_dist.embeddings.parts import table_weights, write_rows
from cove_dist.errors import ConfigError
from cove_dist.quantization import CascadedQuantizer
from data_pipeline.preparation.report import Report
from data_pipeline.schema import ENTITIES, Categorical, Schema

Usage = tuple[torch.Tensor, ...]  # how often each code was chosen, [v_i] per level


def check_unseen(config: RunConfig, schema: Schema) -> None:
    """Refuse ``embeddings.unseen=codes`` where training itself reaches the rows of unseen ids, or they may not be read.

    Raises:
        ConfigError: Ids of a quantized entity have a least count of rows, or rows are cached.
    """
    if config.embeddings.unseen != "codes":
        return
    if (factor := config.embeddings.cache_load_factor) is not None:
        # fbgemm's flush writes cached rows to host memory and leaves them in the cache
        raise ConfigError(
            f"embeddings.unseen = codes: not with embeddings.cache_load_factor = {factor}: that row is written in host"
            " memory, and an earlier copy of it may be cached in GPU memory; allowed: row, or cache_load_factor = null"
        )
    for column in map(schema.entity, config.quantizer.levels()):
        if column.buckets or rare_ids(config.data.path, column):
            raise ConfigError(
                f"embeddings.unseen = codes: ids of {column.name} that are rarer than data.min_count train the rows of"
                " unseen ids; allowed: row"
            )


def rare_ids(data: str, column: Categorical) -> int:
    """Return how many ids of training are rarer than ``data.min_count``, and train the rows of unseen ids."""
    return Report.load(data).rare.get(column.name, {}).get("ids", 0)


@torch.no_grad()
def set_unseen_rows(
    tables: nn.Module, quantizers: Mapping[str, CascadedQuantizer], usage: Mapping[str, Usage], schema: Schema
) -> None:
    """Set the out-of-vocabulary row of each quantized entity to the mean of its codes; nothing if none was chosen yet.

    Args:
        tables: The tables of a model, of any sharding.
        quantizers: Its quantizers, by entity.
        usage: Counts of their codes over all ranks.
        schema: Schema of the prepared data.
    """
    weights = table_weights(tables)
    for entity in ENTITIES:
        if entity in quantizers and usage[entity][0].any():
            row = mean_of_codes(quantizers[entity], usage[entity]).unsqueeze(0)
            column = schema.entity(entity)
            write_rows(weights[column.table_name], torch.tensor([column.num_seen], device=row.device), row)


def mean_of_codes(quantizer: CascadedQuantizer, usage: Usage) -> torch.Tensor:
    """Return the mean of what the codes stand for, weighted by use: float64 ``[d]``.

    A finest code is near the vectors that chose it, so this is near the mean of all vectors. In a residual cascade a
    vector is near the sum of its codes, and the mean is the sum over levels.

    Args:
        quantizer: The quantizer.
        usage: Counts of its codes, on any device.
    """
    means = [
        counts.to(codebook.device).double() @ codebook.double() / counts.sum()
        for counts, codebook in zip(usage, quantizer.codebooks, strict=True)
    ]
    return torch.stack(means).sum(dim=0) if quantizer.settings.cascade == "residual" else means[0]
