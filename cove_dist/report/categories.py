"""Known categories of the entities, joined with their codes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cove_dist.report.codes import EntityCodes
from cove_dist.report.run_folder import Run
from cove_dist.tasks.saved_data import find_data
from data_pipeline.errors import DataError, UserError
from data_pipeline.integrity import checked_file
from data_pipeline.schema import TITLE, Entity, Schema, category_kinds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """The ids that have both codes and a category of one column.

    Shapes: ``N`` ids, ``H`` levels, ``M`` memberships, ``C`` categories.

    Attributes:
        entity: User or item.
        levels: ``v_1 > v_2 > … > v_H``.
        column: The category column.
        several: Whether an id may have several categories; if not, ``M = N`` and ``ids`` is ``0 .. N-1``.
        names: ``[C]``, the largest category first.
        codes: int64 ``[N, H]``.
        ids: int64 ``[M]``, rows of ``codes``.
        categories: int64 ``[M]``.
    """

    entity: Entity
    levels: tuple[int, ...]
    column: str
    several: bool
    names: tuple[str, ...]
    codes: np.ndarray
    ids: np.ndarray
    categories: np.ndarray


def load_titles(run: Run, entity: EntityCodes) -> dict[str, str]:
    """Return the column ``title`` of the category file by original id, as text; empty if there is none."""
    path = _category_file(run, entity)
    if path is None or TITLE not in pq.read_schema(path).names:
        return {}
    table = pq.read_table(path, columns=["original_id", TITLE])
    known = table.filter(pc.is_valid(table[TITLE]))
    return dict(zip(map(str, known["original_id"].to_pylist()), known[TITLE].to_pylist(), strict=True))


def data_folder(run: Run) -> Path | None:
    """Return the folder of the run's data, wherever the run was trained; None if they are gone or have changed."""
    try:
        return find_data(run.folder, run.config["data"]["path"])
    except UserError as error:
        logger.warning("%s", error)
        return None


def _category_file(run: Run, entity: EntityCodes) -> Path | None:
    """Return the file of an entity's categories in the run's prepared data; None if there is none."""
    data = data_folder(run)
    if data is None or not (data / "categories").is_dir():
        return None
    path = data / "categories" / f"{Schema.load(data).entity(entity.entity).table_name}.parquet"
    return path if path.is_file() else None


def load_categories(run: Run, entity: EntityCodes) -> list[Labelled]:
    """Read the columns of ``categories/<id column>.parquet`` in the run's prepared data; none without the file.

    Raises:
        DataError: The file lacks ``original_id``, or a column is neither integers, text nor lists of them.
    """
    path = _category_file(run, entity)
    if path is None:
        return []
    table = pq.read_table(checked_file(path.parents[1], f"categories/{path.name}"))
    if "original_id" not in table.column_names:
        raise DataError(f"{path}: no column original_id. Prepare the data again.")
    known = entity.original_ids  # more than 2 GiB of text are large_string there, and cannot be string
    rows = pc.index_in(table["original_id"].cast(known.type), value_set=known).combine_chunks()
    labelled = []
    for column in category_kinds(table.column_names):
        _check_type(path, column, table.schema.field(column).type)
        labelled.append(_match(entity, column, table[column].combine_chunks(), rows))
    return [one for one in labelled if len(one.names)]


def _check_type(path: Path, column: str, kind: pa.DataType) -> None:
    value = kind.value_type if _is_list(kind) or pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(value) or pa.types.is_string(value) or pa.types.is_large_string(value)):
        raise DataError(f"{path}: column {column} is {kind}: categories are integers, text, or lists of them")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _match(entity: EntityCodes, column: str, values: pa.Array, rows: pa.Array) -> Labelled:
    """Put a column's values (one value or a list per id, nulls left out) next to the codes.

    Args:
        entity, column: See `Labelled`.
        values: ``[n]``, of the ids in the category file.
        rows: ``[n]``, their rows in ``entity.codes``; null where training never saw the id.
    """
    several = _is_list(values.type)
    owners = rows.take(pc.list_parent_indices(values)) if several else rows
    flat = pc.list_flatten(values) if several else values
    kept = pc.and_(pc.is_valid(owners), pc.is_valid(flat))
    owners, flat = owners.filter(kept), flat.filter(kept).cast(pa.string())
    distinct = flat.dictionary_encode()
    names = np.array(distinct.dictionary.to_pylist(), dtype=object)
    pairs = np.stack([owners.to_numpy(), distinct.indices.to_numpy()]).astype(np.int64)
    seen, categories = np.unique(pairs, axis=1)  # an id that names a category twice has it once
    seen, ids = np.unique(seen, return_inverse=True)
    counts = np.bincount(categories, minlength=len(names))
    order = np.array(sorted(range(len(names)), key=lambda i: (-counts[i], names[i])), dtype=np.int64)
    ranks = np.argsort(order)
    return Labelled(
        entity.entity, entity.levels, column, several, tuple(names[order]), entity.codes[seen], ids, ranks[categories]
    )
