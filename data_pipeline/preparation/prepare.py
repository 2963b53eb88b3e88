"""Raw rows -> checked, split, encoded, sharded Parquet, through DuckDB tables that spill to disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_pipeline.datasets.base import RawData
from data_pipeline.datasets.lists import ItemLists
from data_pipeline.preparation.interactions import prepare_interactions, prepare_sequences
from data_pipeline.preparation.lists import filter_lists, report_lists, split_lists, write_lists
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.validate import validate
from data_pipeline.preparation.workspace import Workspace, complete_or_absent, open_workspace
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def prepare(
    dataset: RawData,
    output: Path,
    *,
    name: str,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[str], None] = logger.info,
) -> Schema:
    """Prepare `dataset` into the folder `output`, which is complete or absent.

    Training rows are shuffled once by a seeded hash; validation and test are sorted by user, then time, and rows of a
    request stand together there. The same data and seed give the same rows in the same order, whatever the number of
    threads.

    Args:
        dataset: where the raw rows come from and which columns mean what.
        output: the folder to make (see `data_pipeline.schema` for its layout).
        name: of the data set, kept in the schema.
        seed: of the shuffle, of a random split, and of synthetic data.
        overwrite: replace a folder that exists.
        on_progress: receives one line for people now and then.

    Raises:
        DataError: `output` exists, or the raw data is missing or invalid.
    """
    with (
        complete_or_absent(Path(output), overwrite=overwrite) as folder,
        open_workspace(
            folder / "scratch", memory_gb=dataset.memory_gb, seed=seed, on_progress=on_progress
        ) as workspace,
    ):
        if isinstance(dataset, ItemLists):
            parts = _prepare_lists
        else:
            parts = prepare_interactions if dataset.sequence_length is None else prepare_sequences
        schema, report = parts(dataset, workspace, folder, name)
        schema.save(folder)
        replace(report, warnings=workspace.warnings).save(folder)
    on_progress(f"{name}: {sum(report.rows.values()):,} rows in {output}")
    if differences := report.differences():
        logger.warning("%s: not what was published: %s", name, ", ".join(differences))
    return schema


def _prepare_lists(dataset: ItemLists, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
    """A row a list."""
    source = dataset.read(workspace)
    workspace.on_progress("checking rows")
    dropped = source.dropped | validate(workspace, source, dataset.columns, dataset.on_invalid)
    dropped |= filter_lists(workspace, dataset.rules)
    lists = split_lists(workspace, dataset.ratios)
    owners = dataset.read_owners(workspace)
    schema = write_lists(workspace, folder, name, lists, dataset.row_group_size, owners=owners)
    return schema, report_lists(workspace, schema, source.description, dropped, dataset.published)
