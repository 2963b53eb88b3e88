"""Known categories of items -> edges of a graph: for every item seen in training, the ids of its attributes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.history import write_history
from data_pipeline.preparation.columns import ITEM
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import ATTRIBUTES, Categorical


def write_attributes(workspace: Workspace, folder: Path, item: Categorical) -> dict[str, int]:
    """Write ``history/attributes`` and ``ids/attributes.parquet`` (id, kind, original_id) from the items' categories.

    An attribute is a value of a category column, its kind. Attributes are numbered kind after kind, in order of their
    values. An item that has every attribute gets no edges: there is none that it has not, to compare them with.

    Returns:
        How many there are of each kind; none when no categories are known, or no item has edges.
    """
    path = folder / "categories" / f"{ITEM}.parquet"
    if not path.is_file():
        return {}
    known = pq.read_table(path)
    known = known.filter(pc.less(known["id"], item.num_seen)).combine_chunks()
    items, attributes, names, sizes = [], [], [], {}
    for kind in known.column_names[2:]:
        owners, values = _flat(known["id"].chunk(0), known[kind].chunk(0))
        distinct = values.unique().sort()
        items.append(owners.to_numpy())
        attributes.append(pc.index_in(values, distinct).to_numpy().astype(np.int64) + sum(sizes.values()))
        names.append(pa.table({"kind": [kind] * len(distinct), "original_id": distinct.cast(pa.string())}))
        sizes[kind] = len(distinct)
    edges = np.unique(np.column_stack([np.concatenate(items), np.concatenate(attributes)]), axis=0)
    of_item = np.bincount(edges[:, 0], minlength=item.num_seen)
    everything = np.flatnonzero(of_item == sum(sizes.values())) if len(edges) else []
    if len(everything):
        known_ids = dict(zip(known["id"].to_pylist(), known["original_id"].to_pylist(), strict=True))
        workspace.warn(
            f"{len(everything):,} items, such as {known_ids[everything[0]]!r}, have every attribute; they get no edges"
        )
        edges = edges[~np.isin(edges[:, 0], everything)]
    if len(edges) == 0:
        return {}
    write_history([(edges[:, 0], edges[:, 1])], item.num_seen, len(edges), folder / "history" / ATTRIBUTES)
    table = pa.concat_tables(names)
    pq.write_table(table.add_column(0, "id", pa.array(np.arange(len(table)))), folder / "ids" / f"{ATTRIBUTES}.parquet")
    return sizes


def _flat(ids: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """One id and one value a pair, without nulls."""
    if pa.types.is_list(values.type):
        ids, values = ids.take(pc.list_parent_indices(values)), pc.list_flatten(values)
    known = pc.is_valid(values)
    return ids.filter(known), values.filter(known)
