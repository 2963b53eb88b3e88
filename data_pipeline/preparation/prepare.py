"""Raw rows -> checked, split, encoded, sharded Parquet, through DuckDB tables that spill to disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb

from data_pipeline.datasets.base import Dataset, RawData
from data_pipeline.datasets.lists import ItemLists
from data_pipeline.preparation.attributes import write_attributes
from data_pipeline.preparation.candidates import with_candidates, write_histories
from data_pipeline.preparation.categories import write_categories
from data_pipeline.preparation.columns import ITEM, LABEL, ROW, SPLIT, TIME, USER, Columns
from data_pipeline.preparation.encode import encode_ids, id_table
from data_pipeline.preparation.implicit import keep_positives
from data_pipeline.preparation.lists import filter_lists, report_lists, split_lists, write_lists
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.sequences import report_sequences, write_sequences
from data_pipeline.preparation.split import seeded_hash, split_rows
from data_pipeline.preparation.validate import validate
from data_pipeline.preparation.workspace import Workspace, complete_or_absent, open_workspace, quoted
from data_pipeline.preparation.writer import BATCH_ROWS, moments, write_split
from data_pipeline.schema import CANDIDATES, SPLITS, Categorical, Schema, Split

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

    Training rows are shuffled once by a seeded hash; validation and test are sorted by user, then time. The same data
    and seed give the same rows in the same order, whatever the number of threads.

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
            parts = _prepare_rows if dataset.sequence_length is None else _prepare_sequences
        schema, report = parts(dataset, workspace, folder, name)
        schema.save(folder)
        report.save(folder)
    on_progress(f"{name}: {sum(report.rows.values()):,} rows in {output}")
    if differences := report.differences():
        logger.warning("%s: not what was published: %s", name, ", ".join(differences))
    return schema


def _prepare_rows(dataset: Dataset, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
    """A row an interaction."""
    source, dropped, rows = _read_and_split(dataset, workspace)
    categorical = encode_ids(workspace, dataset.columns, folder)
    if dataset.is_implicit:
        write_histories(workspace, categorical[0].num_ids, rows, folder)
    schema = _write(workspace, folder, name, dataset, categorical, rows)
    write_categories(workspace, source.categories, folder)
    if dataset.is_implicit:
        schema = replace(schema, attributes=write_attributes(folder, schema.entity("item")))
    return schema, _report(workspace, schema, source.description, dataset.split_by, dropped, dataset.published)


def _prepare_sequences(dataset: Dataset, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
    """A row a history."""
    source, dropped, _ = _read_and_split(dataset, workspace)
    schema = write_sequences(workspace, folder, name, dataset.sequence_length, dataset.row_group_size)
    write_categories(workspace, {ITEM: source.categories[ITEM]} if ITEM in source.categories else {}, folder)
    return schema, report_sequences(workspace, schema, source.description, dropped, dataset.published)


def _read_and_split(dataset: Dataset, workspace: Workspace) -> tuple[Source, dict[str, int], dict[str, int]]:
    """Create ``rows``; what was read, the rows left out by reason, and the rows of every split."""
    columns, split_by = dataset.columns, dataset.split_by
    source = dataset.read(workspace)
    workspace.on_progress("checking rows")
    dropped = source.dropped | validate(workspace, source, columns, dataset.on_invalid)
    timed = columns.time is not None
    if dataset.is_implicit:
        dropped |= keep_positives(workspace, dataset.core, timed)
    workspace.on_progress(f"splitting by {split_by}")
    return source, dropped, split_rows(workspace, split_by, dataset.ratios, timed)


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


def _write(
    workspace: Workspace,
    folder: Path,
    name: str,
    dataset: Dataset,
    categorical: tuple[Categorical, ...],
    rows: dict[str, int],
) -> Schema:
    columns, count = dataset.columns, dataset.candidates if dataset.is_implicit else 0
    item = categorical[1]
    splits = {}
    for number, split in enumerate(SPLITS):
        workspace.on_progress(f"writing {split}: {rows[split]:,} rows")
        encoded = _encoded(workspace, columns, number).to_arrow_reader(BATCH_ROWS)
        if count and split != "train":
            encoded = with_candidates(encoded, folder, item, count, workspace.seed, number)
        files = write_split(encoded, rows[split], folder / split, dataset.row_group_size)
        splits[split] = Split(rows=rows[split], files=files)
    training = [folder / file for file in splits["train"].files]
    dense = tuple(moments(training, column) for column in columns.dense)
    return Schema(
        name=name,
        label=LABEL,
        categorical=categorical,
        dense=dense,
        splits=splits,
        implicit=dataset.is_implicit,
        candidates=replace(item, name=CANDIDATES, sequence=True, table=item.table_name) if count else None,
    )


def _encoded(workspace: Workspace, columns: Columns, split: int) -> duckdb.DuckDBPyRelation:
    """The rows of a split with encoded ids, in the order in which they are written."""
    names = (USER, ITEM, *columns.categorical)
    ids = [f"{id_table(name)}.id AS {quoted(name)}" for name in names]
    values = [f"rows.{quoted(name)}" for name in (*columns.dense, LABEL)]
    joins = [
        f"JOIN {id_table(name)} ON {id_table(name)}.original_id IS NOT DISTINCT FROM rows.{quoted(name)}"
        for name in names
    ]
    by_time = [f"{id_table(USER)}.id", *([f"rows.{TIME}"] if columns.time else []), f"rows.{ROW}"]
    order = [seeded_hash(workspace.seed, "shuffle"), f"rows.{ROW}"] if split == 0 else by_time
    return workspace.connection.sql(
        f"SELECT {', '.join([*ids, *values])} FROM rows {' '.join(joins)}"
        f" WHERE {SPLIT} = {split} ORDER BY {', '.join(order)}"
    )


def _report(
    workspace: Workspace,
    schema: Schema,
    source: str,
    split: str,
    dropped: dict[str, int],
    published: dict[str, int],
) -> Report:
    [(interactions,)] = workspace.query(f"SELECT count(*) FROM rows WHERE {LABEL} = 1")
    [(pairs,)] = workspace.query(f"SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY {USER}, {ITEM})")
    rows = {name: split.rows for name, split in schema.splits.items()}
    samples = sum(rows.values())
    users, items = schema.entity("user").num_ids, schema.entity("item").num_ids
    return Report(
        name=schema.name,
        source=source,
        seed=workspace.seed,
        split=split,
        rows_read=samples + sum(dropped.values()),
        rows_dropped=dropped,
        duplicate_pairs=samples - pairs,
        rows=rows,
        users=users,
        items=items,
        interactions=interactions,
        samples=samples,
        density=samples / (users * items),
        published=published,
    )
