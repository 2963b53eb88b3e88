"""How many ids a training step looks up in each table, for TorchRec's planner."""

from __future__ import annotations

from cove_dist.config import RunConfig
from cove_dist.embeddings.fields import Tables, table_configs
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import Schema


def lookups_by_table(
    tables: Tables, config: RunConfig, schema: Schema, rows: int, world_size: int
) -> dict[str, list[float]]:
    """Return the ids per row of a rank's batch, by table, feature by feature.

    Args:
        tables: Tables of the model.
        config, schema: Configuration and data of the run.
        rows: Rows of a rank's batch.
        world_size: Number of ranks.
    """
    lookups = task_of(config).lookups(config, schema, rows, world_size)
    return {
        table: [lookups.of(feature, rows) / rows for feature in of_table.feature_names]
        for table, of_table in table_configs(tables).items()
    }
