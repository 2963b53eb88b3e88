"""Users and items that were never trained: their vectors and recommendations from their interactions.

Shapes: ``n`` new users or items, ``m`` pairs of them and a neighbor, ``d`` width of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cove_dist.errors import ConfigError
from cove_dist.inference.arguments import check_choice, check_count, listed_items
from cove_dist.inference.ids import IdTable, as_array
from cove_dist.inference.predict import entity_columns
from cove_dist.inference.row_files import as_table, read_rows
from cove_dist.inference.session import Session
from data_pipeline.id_tables import combined
from data_pipeline.schema import OTHER_ENTITY, Entity

logger = logging.getLogger(__name__)

STEPS, LEARNING_RATE = 100, 0.02  # of the gradient steps

Interactions: TypeAlias = Mapping[Any, Sequence[Any]] | pa.Table | str | Path | Any


class Pairs(NamedTuple):
    """Interactions of new ids.

    Attributes:
        original: Original ids of the new users or items, ``[n]``.
        rows: Index into ``original`` of every pair, int64 ``[m]``, increasing.
        others: Encoded trained ids of the other entity, int64 ``[m]``.
    """

    original: pa.Array
    rows: np.ndarray
    others: np.ndarray


class FoldedIn:
    """New users or items that were folded into a run; see `cove_dist.inference.run.Run.fold_in`.

    Args:
        session: The run.
        entity: Whether they are users or items.
        pairs: Their interactions.
        steps, learning_rate: Of the gradient steps.

    Raises:
        ConfigError: The model cannot fold in new ids.
    """

    def __init__(self, session: Session, entity: Entity, pairs: Pairs, steps: int, learning_rate: float) -> None:
        self._session, self._entity, self._pairs = session, entity, pairs
        count = len(pairs.original)
        self._vectors = session.inference.fold_in(entity, pairs.rows, pairs.others, count, steps, learning_rate)

    def __len__(self) -> int:
        return len(self._pairs.original)

    def embeddings(self) -> pa.Table:
        """Return ``original_id`` and ``embedding``, a list of d float32, of every new id."""
        values = pa.FixedSizeListArray.from_arrays(pa.array(self._vectors.reshape(-1)), self._vectors.shape[1])
        return pa.table({"original_id": self._pairs.original, "embedding": values})

    def recommend(self, k: int = 10, history: Literal["remove", "keep"] = "remove") -> pa.Table:
        """List the best k items for every new user, or the users to whom a new item matters most.

        Args:
            k: Length of a list.
            history: Whether to remove the interactions that were given.

        Returns:
            ``user``, ``rank`` from 1, ``item`` and ``score``; ``item``, ``rank``, ``user`` and ``score`` for items.
        """
        check_choice("history", history, "remove", "keep")
        check_count("k", k)
        k = listed_items(k, self._session.schema, OTHER_ENTITY[self._entity])
        pairs, other = self._pairs, self._others
        excluded = (pairs.rows, pairs.others) if history == "remove" else (pairs.rows[:0], pairs.others[:0])
        lists = self._session.inference.recommend_folded_in(self._entity, self._vectors, k, excluded)
        rows, places = np.nonzero(lists.items >= 0)
        return pa.table(
            {
                self._entity: pairs.original.take(pa.array(rows)),
                "rank": pa.array(places + 1, pa.int32()),
                OTHER_ENTITY[self._entity]: other.decode(lists.items[rows, places]),
                "score": pa.array(lists.scores[rows, places].astype(np.float32)),
            }
        )

    @cached_property
    def _others(self) -> IdTable:
        return self._session.items if self._entity == "user" else self._session.users


def fold_in(
    session: Session,
    interactions: Interactions,
    entity: Entity,
    unknown: str,
    steps: int,
    learning_rate: float,
    *,
    user: str | None = None,
    item: str | None = None,
) -> FoldedIn:
    """Fold in new ids; see `cove_dist.inference.run.Run.fold_in`."""
    check_choice("entity", entity, "user", "item")
    check_choice("unknown", unknown, "error", "skip")
    check_count("steps", steps)
    if not (isinstance(learning_rate, Real) and 0 < learning_rate <= 1e6):
        raise ConfigError(f"learning_rate = {learning_rate!r}: must be above 0, and at most 1e6; 0.02 is usual")
    session.inference.check_fold_in()
    names = entity_columns(session.schema, user, item)
    types = {name: session.table(each).type_in_files for each, name in names.items()}
    own, others = _columns(interactions, entity, names, types)
    return FoldedIn(session, entity, find_pairs(session, own, others, entity, unknown), steps, learning_rate)


def find_pairs(session: Session, own: pa.Array, others: pa.Array, entity: Entity, unknown: str) -> Pairs:
    """Encode interactions.

    Args:
        session: The run.
        own, others: The new id and its neighbor, in original ids, of every interaction.
        entity: Whether the new ids are users or items.
        unknown: What to do with unknown neighbors.

    Raises:
        ConfigError: There are none with trained neighbors, or some are unknown and ``unknown`` is ``error``.
    """
    if len(own) == 0:
        raise ConfigError("interactions: there are none; a new id is folded in by its interactions")
    other = OTHER_ENTITY[entity]
    for role, ids in ((entity, own), (other, others)):
        if pa.types.is_nested(ids.type) or ids.null_count:
            found = f"{ids.null_count} are null" if ids.null_count else f"they are of type {ids.type}"
            raise ConfigError(f"interactions: ids of {role}s must be numbers or text, one a row; {found}")
    tables = {"user": session.users, "item": session.items}
    trained = tables[entity].known(tables[entity].encode(own))
    if trained.any():
        old = own.filter(pa.array(trained)).unique()
        raise ConfigError(
            f"interactions: {entity} {old[0].as_py()!r} and {len(old) - 1} others were trained; give new ids only, and"
            " ask for trained ones without interactions"
        )
    table = tables[other]
    encoded = table.encode(others)
    if unknown == "error":
        table.require_known(encoded, others, "interactions", "unknown=skip")
    known = table.known(encoded)
    if not known.any():
        raise ConfigError(f"interactions: training saw no {other} of the {len(own)} interactions")
    kept = own.filter(pa.array(known))
    original = kept.unique()
    lost = len(own.unique()) - len(original)
    if not known.all():
        logger.info(
            "Left out %d of %d interactions, and %d new ids that have no others", (~known).sum(), len(own), lost
        )
    rows = pc.index_in(kept, original).to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = np.unique(np.stack([rows, encoded[known]], axis=1), axis=0)
    return Pairs(original, pairs[:, 0], pairs[:, 1])


def _columns(
    interactions: Interactions, entity: Entity, names: Mapping[Entity, str], types: Mapping[str, pa.DataType]
) -> tuple[pa.Array, pa.Array]:
    """Return the new ids and their neighbors, one pair each, in original ids; ``types`` are of columns of CSV files.

    Raises:
        ConfigError: The file cannot be read, or a column is missing.
    """
    if isinstance(interactions, Mapping):
        given = {key: as_array(each, f"interactions: of {key!r}").to_pylist() for key, each in interactions.items()}
        if empty := [key for key, each in given.items() if not each]:
            raise ConfigError(
                f"interactions: {len(empty)} of {len(given)} new ids have none, such as {empty[0]!r}; a new id is"
                " folded in by its interactions, so leave them out"
            )
        own = [key for key, each in given.items() for _ in each]
        return as_array(own), as_array([other for each in given.values() for other in each])
    if not isinstance(interactions, str | Path):
        table = as_table(interactions, "interactions", "{new id: [known id, …]}, ")
    else:
        parts = list(read_rows(Path(interactions), types, "interactions"))
        if not parts:
            raise ConfigError(f"interactions = {interactions}: has no rows; a new id is folded in by its interactions")
        table = pa.concat_tables(parts)
    if missing := [f"{role} = {name}" for role, name in names.items() if name not in table.column_names]:
        raise ConfigError(
            f"interactions: no column {', '.join(missing)}; there are {', '.join(table.column_names)}. Name the columns"
            " of users and items by user=… item=…"
        )
    columns = {role: combined(table[name]) for role, name in names.items()}
    return columns[entity], columns[OTHER_ENTITY[entity]]
