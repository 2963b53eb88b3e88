"""Raw interactions -> a prepared row per interaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_pipeline.preparation.attributes import write_attributes
from data_pipeline.preparation.candidates import with_candidates, write_histories
from data_pipeline.preparation.categories import write_categories
from data_pipeline.preparation.columns import ITEM, LABEL, MOMENT, ROW, SPLIT, TIME, USER, Columns
from data_pipeline.preparation.delimited import OnInvalid
from data_pipeline.preparation.dense import DenseSettings, learn_dense, make_bins, scaled, without_bins
from data_pipeline.preparation.encode import (
    count_present,
    count_rare,
    encode_column,
    encode_ids,
    encoded,
    rows_with_ids,
)
from data_pipeline.preparation.implicit import keep_positives
from data_pipeline.preparation.lists import cut_lists, encoded_list, joined_lists
from data_pipeline.preparation.rare import RareRule
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.saturation import SaturatedUsers, leave_out_saturated
from data_pipeline.preparation.signals import check_dense, check_labels, check_weights
from data_pipeline.preparation.split import SplitRule, count_splits, seeded_hash, split_rows
from data_pipeline.preparation.ties import count_ties
from data_pipeline.preparation.validate import validate
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.preparation.writer import write_split
from data_pipeline.schema import CANDIDATES, REQUEST, SPLITS, WEIGHT, Categorical, Schema, Split


@dataclass(frozen=True, kw_only=True)
class InteractionRules:
    """The settings of a data set of interactions, checked and with their defaults resolved.

    Attributes:
        columns: Meaning of the raw columns.
        split: Rule by which rows are split.
        implicit: Keep only positives, each user-item pair once.
        core: Least rows of a user and of an item; None keeps all.
        candidates: Items to rank with each positive of validation and test; 0 for none.
        saturated_users: Treatment of users who have too many items to draw others; None if none are drawn.
        on_invalid: Treatment of rows that break a rule.
        row_group_size: Rows of a Parquet row group.
        published: Counts that the publisher states, by name.
        rare: Rules of rare ids, by prepared column.
        dense: Transforms of dense columns, by column.
    """

    columns: Columns
    split: SplitRule
    implicit: bool
    core: int | None
    candidates: int
    saturated_users: SaturatedUsers | None
    on_invalid: OnInvalid
    row_group_size: int
    published: Mapping[str, int]
    rare: Mapping[str, RareRule] = field(default_factory=dict)
    dense: Mapping[str, DenseSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitCounts:
    """Counts over the table ``rows``, as `split_interactions` creates it.

    Attributes:
        dropped: Rows left out, by reason.
        rows: Rows of every split.
        validation: Origin of the validation rows (see `split_rows`).
        ties: See `count_ties`.
        lists_cut: Rows whose list was cut, by column.
    """

    dropped: dict[str, int]
    rows: dict[str, int]
    validation: str
    ties: dict[str, int]
    lists_cut: dict[str, int]


def split_interactions(workspace: Workspace, source: Source, rules: InteractionRules) -> SplitCounts:
    """Create the table ``rows`` from ``raw``: valid rows, with their split."""
    workspace.on_progress(f"checking {workspace.count('raw'):,} rows")
    dropped = source.dropped | validate(workspace, source, rules.columns, rules.on_invalid)
    if rules.implicit:
        workspace.on_progress("keeping positives" + (f" of the {rules.core}-core" if rules.core else ""))
        dropped |= keep_positives(workspace, rules.core, rules.split.timed)
    workspace.on_progress(f"splitting {workspace.count('valid'):,} rows by {rules.split.by}")
    validation = split_rows(workspace, rules.split)
    if rules.saturated_users is not None:
        dropped |= leave_out_saturated(workspace, rules.candidates, rules.saturated_users)
    rows = count_splits(workspace, rules.split)
    if not rules.implicit:
        check_labels(workspace, rules.columns)
    check_dense(workspace, rules.columns)
    check_weights(workspace, rules.columns)
    if validation == "none":
        workspace.warn(
            "the given split has no validation rows: training will run to its last epoch, without early stopping and"
            " without a best checkpoint. To take some from training, set data.validation=leave_one_out or ratio"
        )
    elif validation in ("leave_one_out", "ratio"):
        workspace.on_progress(f"took {rows['validation']:,} validation rows from training by {validation}")
    ties, lists_cut = count_ties(workspace, rules.split), cut_lists(workspace, rules.columns.lists)
    return SplitCounts(dropped, rows, validation, ties, lists_cut)


def prepare_interactions(
    workspace: Workspace, source: Source, rules: InteractionRules, folder: Path, name: str
) -> tuple[Schema, Report]:
    """Write a prepared row per interaction.

    Args:
        workspace: Workspace that holds ``raw``.
        source: Source of ``raw``.
        rules: Rules by which rows are checked, split and written.
        folder: The prepared folder.
        name: Name of the data set.
    """
    counts = split_interactions(workspace, source, rules)
    bins = make_bins(workspace, rules.columns, rules.dense)
    rules = replace(rules, columns=without_bins(rules.columns, bins))
    categorical = encode_ids(workspace, rules.columns, folder, rules.rare)
    categorical = tuple(replace(column, bins=bins.get(column.name)) for column in categorical)
    requests = 0
    if rules.columns.request is not None:
        requests = encode_column(workspace, REQUEST, "feature", folder).num_ids
    if rules.implicit:
        write_histories(workspace, categorical[0].num_ids, counts.rows, folder)
    schema = replace(_write(workspace, folder, name, rules, categorical, counts.rows), requests=requests)
    write_categories(workspace, source.categories, folder)
    if rules.implicit:
        schema = replace(schema, attributes=write_attributes(workspace, folder, schema.entity("item")))
    return schema, _report(workspace, schema, source, rules, counts)


def _write(
    workspace: Workspace,
    folder: Path,
    name: str,
    rules: InteractionRules,
    categorical: tuple[Categorical, ...],
    rows: dict[str, int],
) -> Schema:
    columns, count, item = rules.columns, rules.candidates, categorical[1]
    learned = learn_dense(workspace, columns, rules.dense)
    splits = {}
    for split, number_of_rows in rows.items():
        workspace.on_progress(f"writing {split}: {number_of_rows:,} rows")
        number = SPLITS.index(split)
        reader = workspace.stream(_encoded_rows(workspace, columns, number))
        if count and split != "train":
            reader = with_candidates(reader, folder, item, count, workspace.seed, number)
        files = write_split(reader, number_of_rows, folder / split, rules.row_group_size)
        splits[split] = Split(rows=number_of_rows, files=files)
    training = [folder / file for file in splits["train"].files]
    return Schema(
        name=name,
        label=LABEL,
        categorical=categorical,
        dense=tuple(scaled(each, rules.dense.get(name), training) for name, each in learned.items()),
        splits=splits,
        implicit=rules.implicit,
        list_separator=columns.lists.separator if columns.lists.names else None,
        weight=WEIGHT if columns.weight else None,
        labels=columns.labels,
        candidates=replace(item, name=CANDIDATES, sequence=True, table=item.table_name) if count else None,
    )


def _encoded_rows(workspace: Workspace, columns: Columns, split: int) -> str:
    """Return the SELECT of the rows of a split with encoded ids, in the order in which they are written.

    Validation and test are in order of user, then time, and the rows of a request are consecutive.
    """
    request = [REQUEST] if columns.request else []
    weight = [WEIGHT] if columns.weight else []
    names = (USER, ITEM, *columns.categorical, *request)
    ids = [f"{encoded(name)} AS {quoted(name)}" for name in names]
    ids += [f"{encoded_list(name)} AS {quoted(name)}" for name in columns.lists.names]
    values = [f"rows.{quoted(name)}" for name in (*columns.dense, LABEL, *columns.further_labels, *weight)]
    for place, name in enumerate(columns.dense):
        if name in columns.nullable:
            values[place] = f"coalesce({values[place]}, 'nan'::FLOAT) AS {quoted(name)}"
    by_time = [encoded(USER), *([f"rows.{MOMENT}"] if columns.time else [])]
    by_time += [encoded(name) for name in request]
    by_time += [*([f"rows.{TIME}"] if columns.time else []), f"rows.{ROW}"]
    order = [seeded_hash(workspace.seed, "shuffle"), f"rows.{ROW}"] if split == 0 else by_time
    return (
        f"SELECT {', '.join([*ids, *values])} FROM {rows_with_ids(*names)} {joined_lists(columns.lists.names)}"
        f" WHERE {SPLIT} = {split} ORDER BY {', '.join(order)}"
    )


def _report(
    workspace: Workspace, schema: Schema, source: Source, rules: InteractionRules, counts: SplitCounts
) -> Report:
    [(interactions,)] = workspace.query(f"SELECT count(*) FROM rows WHERE {LABEL} = 1")
    [(pairs,)] = workspace.query(f"SELECT count(*) FROM (SELECT 1 FROM rows GROUP BY {USER}, {ITEM})")
    samples = sum(counts.rows.values())
    users, items = count_present(workspace, USER), count_present(workspace, ITEM)
    return Report(
        name=schema.name,
        source=source.description,
        seed=workspace.seed,
        split=rules.split.by,
        rows_read=samples + sum(counts.dropped.values()),
        rows_dropped=counts.dropped,
        duplicate_pairs=samples - pairs,
        rows=counts.rows,
        users=users,
        items=items,
        interactions=interactions,
        samples=samples,
        density=pairs / (users * items),
        published=dict(rules.published),
        validation=counts.validation,
        ties=counts.ties,
        lists_cut=counts.lists_cut,
        rare={name: count_rare(workspace, name, rule) for name, rule in rules.rare.items()},
    )
