"""Raw rows -> checked, split, encoded, sharded Parquet, through DuckDB tables that spill to disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_pipeline.digests import digest_folder
from data_pipeline.errors import DataError
from data_pipeline.folders import replaced_folder
from data_pipeline.preparation.dataset import Dataset, EncodedDataset, RawDataset
from data_pipeline.preparation.kept_scratch import kept_scratch, mention_kept, removed_scratch
from data_pipeline.preparation.output import check_output
from data_pipeline.preparation.workspace import DuckEngine, Engine
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)

_DUCKDB = DuckEngine()


def prepare(
    dataset: Dataset,
    output: Path,
    *,
    name: str,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    engine: Engine = _DUCKDB,
    on_progress: Callable[[str], None] = logger.info,
    on_percent: Callable[[float], None] = lambda _: None,
) -> Schema:
    """Prepare ``dataset`` into the folder ``output``, which is complete or absent.

    Training rows are shuffled once by a seeded hash; validation and test are sorted by user, then time, and the rows of
    a request are consecutive. The same data and seed give the same rows in the same order, whatever the number of
    threads.

    Args:
        dataset: Source of the raw rows, and meaning of their columns.
        output: The folder to write (see `data_pipeline.schema` for its layout).
        name: Name of the data set, kept in the schema.
        seed: Seed of the shuffle, of a random split, and of synthetic data.
        overwrite: Replace a prepared folder that exists, if all its files are those that preparation wrote.
        resume: Keep the tables of finished steps in ``OUTPUT.resume`` until the preparation is complete, and go on
            from there if it was ended: killed, interrupted, or by a full disk.
        engine: Runs the steps: DuckDB, or `data_pipeline.preparation.spark.engine.SparkEngine`.
        on_progress: Receives one line of progress at a time.
        on_percent: Receives, from another thread, how much of the running query is done.

    Returns:
        The schema of the prepared folder.

    Raises:
        OutputError: ``output`` cannot be written, or the disk is full.
        DataError: ``output`` exists, the raw data are missing or invalid, or the data set does not go with ``engine``
            or ``resume``.
    """
    output = Path(output)
    engine.check(dataset, resume)
    if isinstance(dataset, EncodedDataset):
        if resume:
            raise DataError("resume = true: encoded data are described in one step. Set resume=false")
        return dataset.describe(output, name, overwrite, on_progress)
    assert isinstance(dataset, RawDataset)
    check_output(output, overwrite)
    kept = kept_scratch(output, dataset, name, seed, on_progress) if resume else None
    if not resume:
        mention_kept(output, on_progress)
    with replaced_folder(output) as folder:
        with (
            kept or removed_scratch(folder) as scratch,
            engine.open(
                scratch,
                memory_gb=dataset.memory_gb,
                seed=seed,
                on_progress=on_progress,
                on_percent=on_percent,
                resume=resume,
                keep_ids=None if dataset.keep_ids is None else Path(dataset.keep_ids),
            ) as workspace,
        ):
            schema, report = dataset.prepare(workspace, folder, name)
        schema = replace(schema, digests=digest_folder(folder))
        schema.save(folder)
        kept_ids = {column.table_name: column.kept for column in schema.categorical if column.kept}
        replace(report, warnings=workspace.warnings, kept=kept_ids).save(folder)
    on_progress(f"{name}: {sum(report.rows.values()):,} rows in {output}")
    if differences := report.differences():
        logger.warning("%s: counts differ from the published ones: %s", name, ", ".join(differences))
    return schema
