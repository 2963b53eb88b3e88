"""Data whose rows are interactions -> a row an interaction, or a row a history."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from data_pipeline.datasets.base import Dataset
from data_pipeline.preparation.attributes import write_attributes
from data_pipeline.preparation.candidates import with_candidates, write_histories
from data_pipeline.preparation.categories import write_categories
from data_pipeline.preparation.columns import ITEM, LABEL, MOMENT, ROW, SPLIT, TIME, USER, Columns
from data_pipeline.preparation.encode import encode_column, encode_ids, id_table
from data_pipeline.preparation.implicit import keep_positives
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.saturation import leave_out_saturated
from data_pipeline.preparation.sequences import report_sequences, write_sequences
from data_pipeline.preparation.signals import check_dense, check_labels
from data_pipeline.preparation.split import count_splits, seeded_hash, split_rows
from data_pipeline.preparation.ties import count_ties
from data_pipeline.preparation.validate import validate
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.preparation.writer import BATCH_ROWS, moments, write_split
from data_pipeline.schema import CANDIDATES, REQUEST, SPLITS, Categorical, Schema, Split


@dataclass(frozen=True)
class SplitRows:
    """What is known once ``rows`` is there.

    Attributes:
        source: what was read.
        dropped: rows left out, by reason.
        rows: of every split.
        validation: where the rows for validation come from (`split_rows`).
        ties: see `count_ties`.
    """

    source: Source
    dropped: dict[str, int]
    rows: dict[str, int]
    validation: str
    ties: dict[str, int]


def prepare_interactions(dataset: Dataset, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
    """Write a row an interaction."""
    split = _read_and_split(dataset, workspace)
    categorical = encode_ids(workspace, dataset.columns, folder)
    requests = 0
    if dataset.columns.request is not None:
        requests = encode_column(workspace, REQUEST, "feature", folder).num_ids
    if dataset.is_implicit:
        write_histories(workspace, categorical[0].num_ids, split.rows, folder)
    schema = replace(_write(workspace, folder, name, dataset, categorical, split.rows), requests=requests)
    write_categories(workspace, split.source.categories, folder)
    if dataset.is_implicit:
        schema = replace(schema, attributes=write_attributes(workspace, folder, schema.entity("item")))
    return schema, _report(workspace, schema, dataset, split)


def prepare_sequences(dataset: Dataset, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
    """Write a row a history."""
    split = _read_and_split(dataset, workspace)
    schema = write_sequences(workspace, folder, name, dataset.sequence_length, dataset.row_group_size)
    categories = split.source.categories
    write_categories(workspace, {ITEM: categories[ITEM]} if ITEM in categories else {}, folder)
    report = report_sequences(workspace, schema, split.source.description, split.dropped, dataset.published)
    return schema, replace(report, ties=split.ties)


def _read_and_split(dataset: Dataset, workspace: Workspace) -> SplitRows:
    """Create ``rows``."""
    columns, implicit = dataset.columns, dataset.is_implicit
    rule = dataset.split_rule
    source = dataset.read(workspace)
    workspace.on_progress("checking rows")
    dropped = source.dropped | validate(workspace, source, columns, dataset.on_invalid)
    if implicit:
        dropped |= keep_positives(workspace, dataset.core, rule.timed)
    workspace.on_progress(f"splitting by {rule.by}")
    validation = split_rows(workspace, rule)
    if implicit and dataset.sequence_length is None:
        dropped |= leave_out_saturated(workspace, dataset.candidates, dataset.saturated_users)
    rows = count_splits(workspace, rule)
    if not implicit:
        check_labels(workspace, columns)
    check_dense(workspace, columns)
    if validation == "none":
        workspace.warn(
            "the given split has no rows for validation: training will run to its last epoch, without early stopping"
            " and without a best checkpoint. To take some from training: data.validation=leave_one_out, or ratio"
        )
    elif validation in ("leave_one_out", "ratio"):
        workspace.on_progress(f"{rows['validation']:,} rows for validation are taken from training by {validation}")
    return SplitRows(source, dropped, rows, validation, count_ties(workspace, rule))


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
    for split, number_of_rows in rows.items():
        workspace.on_progress(f"writing {split}: {number_of_rows:,} rows")
        number = SPLITS.index(split)
        encoded = _encoded(workspace, columns, number).to_arrow_reader(BATCH_ROWS)
        if count and split != "train":
            encoded = with_candidates(encoded, folder, item, count, workspace.seed, number)
        files = write_split(encoded, number_of_rows, folder / split, dataset.row_group_size)
        splits[split] = Split(rows=number_of_rows, files=files)
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
    """The rows of a split with encoded ids, in the order in which they are written.

    Validation and test are in order of user, then time, and rows of a request stand together.
    """
    request = [REQUEST] if columns.request else []
    names = (USER, ITEM, *columns.categorical, *request)
    ids = [f"{id_table(name)}.id AS {quoted(name)}" for name in names]
    values = [f"rows.{quoted(name)}" for name in (*columns.dense, LABEL)]
    joins = [
        f"JOIN {id_table(name)} ON {id_table(name)}.original_id IS NOT DISTINCT FROM rows.{quoted(name)}"
        for name in names
    ]
    by_time = [f"{id_table(USER)}.id", *([f"rows.{MOMENT}"] if columns.time else [])]
    by_time += [f"{id_table(name)}.id" for name in request]
    by_time += [*([f"rows.{TIME}"] if columns.time else []), f"rows.{ROW}"]
    order = [seeded_hash(workspace.seed, "shuffle"), f"rows.{ROW}"] if split == 0 else by_time
    return workspace.connection.sql(
        f"SELECT {', '.join([*ids, *values])} FROM rows {' '.join(joins)}"
        f" WHERE {SPLIT} = {split} ORDER BY {', '.join(order)}"
    )


def _report(workspace: Workspace, schema: Schema, dataset: Dataset, split: SplitRows) -> Report:
    [(interactions,)] = workspace.query(f"SELECT count(*) FROM rows WHERE {LABEL} = 1")
    [(pairs,)] = workspace.query(f"SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY {USER}, {ITEM})")
    samples = sum(split.rows.values())
    users, items = schema.entity("user").num_ids, schema.entity("item").num_ids
    return Report(
        name=schema.name,
        source=split.source.description,
        seed=workspace.seed,
        split=dataset.split_by,
        rows_read=samples + sum(split.dropped.values()),
        rows_dropped=split.dropped,
        duplicate_pairs=samples - pairs,
        rows=split.rows,
        users=users,
        items=items,
        interactions=interactions,
        samples=samples,
        density=samples / (users * items),
        published=dataset.published,
        validation=split.validation,
        ties=split.ties,
    )
