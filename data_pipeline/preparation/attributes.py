"""Known categories of items -> edges of a graph: the attribute ids of every item seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.history import history_path, write_history
from data_pipeline.id_tables import id_table_path
from data_pipeline.parquet_files import write_parquet
from data_pipeline.preparation.columns import ITEM
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import ATTRIBUTES, Categorical, category_kinds


def write_attributes(workspace: Workspace, folder: Path, item: Categorical) -> dict[str, int]:
    """Write ``history/attributes`` and ``ids/attributes.parquet`` (id, kind, original_id) from the items' categories.

    An attribute is a value of a category column; the column is its kind. A column `TITLE` is none. Attributes are
    numbered kind after kind, in order of their values. An item that has every attribute gets no edges: it has no
    negative attribute.

    Args:
        workspace: Receives warnings.
        folder: The prepared folder, with its categories.
        item: The item column.

    Returns:
        The number of attributes of each kind; empty when no categories are known, or no item has edges.
    """
    path = folder / "categories" / f"{ITEM}.parquet"
    if not path.is_file():
        return {}
    known = pq.read_table(path)
    known = known.filter(pc.less(known["id"], item.num_seen)).combine_chunks()
    kinds = category_kinds(known.column_names)
    if not kinds or len(known) == 0:
        return {}
    edges, names, sizes = _edges(known, kinds)
    degrees = np.bincount(edges[:, 0], minlength=item.num_seen)
    complete = np.flatnonzero(degrees == sum(sizes.values()))
    if len(edges) and len(complete):
        originals = dict(zip(known["id"].to_pylist(), known["original_id"].to_pylist(), strict=True))
        workspace.warn(
            f"{len(complete):,} items, such as {originals[complete[0]]!r}, have every attribute; they get no edges"
        )
        edges = edges[~np.isin(edges[:, 0], complete)]
    if len(edges) == 0:
        return {}
    write_history([(edges[:, 0], edges[:, 1])], item.num_seen, len(edges), history_path(folder, ATTRIBUTES))
    numbered = names.add_column(0, "id", pa.array(np.arange(len(names))))
    write_parquet(numbered, id_table_path(folder, ATTRIBUTES))
    return sizes


def _edges(known: pa.Table, kinds: Sequence[str]) -> tuple[np.ndarray, pa.Table, dict[str, int]]:
    """Number the values of the category columns.

    Args:
        known: Id, original_id, and a column per kind of category; at least one row.
        kinds: The category columns; at least one.

    Returns:
        Distinct pairs of item and attribute, int64 ``[E, 2]``; kind and original_id of every attribute; and the number
        of attributes of each kind.
    """
    items, attributes, names = [], [], []
    sizes: dict[str, int] = {}
    for kind in kinds:
        owners, values = _flat(known["id"].chunk(0), known[kind].chunk(0))
        distinct = values.unique().sort()
        items.append(owners.to_numpy())
        attributes.append(pc.index_in(values, distinct).to_numpy().astype(np.int64) + sum(sizes.values()))
        names.append(pa.table({"kind": [kind] * len(distinct), "original_id": distinct.cast(pa.string())}))
        sizes[kind] = len(distinct)
    edges = np.unique(np.column_stack([np.concatenate(items), np.concatenate(attributes)]), axis=0)
    return edges, pa.concat_tables(names), sizes


def _flat(ids: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return one id and one value per pair, without nulls."""
    if pa.types.is_list(values.type):
        ids, values = ids.take(pc.list_parent_indices(values)), pc.list_flatten(values)
    known = pc.is_valid(values)
    return ids.filter(known), values.filter(known)
