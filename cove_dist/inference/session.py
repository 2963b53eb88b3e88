"""Inference with a finished run in original ids, in one process.

Shapes: ``n`` rows or pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.inference.arguments import check_choice, check_count, check_oov_row, listed_items
from cove_dist.inference.context import encode_context
from cove_dist.inference.frequent_items import most_frequent
from cove_dist.inference.ids import IdTable, IdTables, as_array
from cove_dist.inference.list_requests import OfSequences, OfUsers
from cove_dist.inference.local import load_local, pick_device
from cove_dist.tasks.inference import ContextFeatures, Inference, Lists
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.saved_data import load_run_with_data
from data_pipeline.errors import DataError
from data_pipeline.schema import Entity, Schema

logger = logging.getLogger(__name__)

UnknownPair = Literal["error", "skip", "oov_row"]
Unknown = Literal["error", "skip", "popular", "oov_row"]
_USERS = 1024  # users per batch


class Session:
    """A checkpoint of a run, loaded on first use.

    Args:
        run: Run folder.
        checkpoint: ``best`` or ``newest``.
        device: ``auto``, ``cpu`` or ``cuda``.
        data: Folder of the run's data; None: found as `cove_dist.tasks.saved_data.find_data` does.

    Raises:
        ConfigError, CheckpointError, DataError: The run, the checkpoint or the data do not exist.
    """

    def __init__(
        self,
        run: Path | str,
        checkpoint: Literal["best", "newest"] = "best",
        device: str = "auto",
        data: Path | str | None = None,
    ) -> None:
        check_choice("checkpoint", checkpoint, "best", "newest")
        check_choice("device", device, "auto", "cpu", "cuda")
        self.config, self.folder = load_run_with_data(str(run), data)
        self.checkpoint = find_checkpoint(self.folder, self.config, checkpoint)
        self.data = Path(self.config.data.path)
        self.schema = Schema.load(self.data)
        self.id_tables = IdTables(self.data)
        self._device = pick_device(device)

    @contextmanager
    def reading_data(self) -> Iterator[None]:
        """Name the data if files are gone that a request needs.

        Raises:
            DataError: A file of the data is gone.
        """
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(
                f"{error}: no such file; the data of the run, {self.data}, are incomplete. Restore them"
            ) from error

    @cached_property
    def inference(self) -> Inference[Any]:
        model = load_local(self.config, self.schema, self.checkpoint, self._device)
        return task_of(self.config).inference_class()(self.config, self.schema, model, self._device)

    def table(self, entity: Entity) -> IdTable:
        """Return the ids of users or items."""
        return self.users if entity == "user" else self.items

    @cached_property
    def users(self) -> IdTable:
        return self.id_tables.of(self.schema.entity("user"))

    @cached_property
    def items(self) -> IdTable:
        return self.id_tables.of(self.schema.entity("item"))

    def score(
        self,
        users: Iterable[Any] | None,
        items: Iterable[Any],
        sequences: Sequence[Sequence[Any]] | None = None,
        columns: Mapping[str, Iterable[Any]] | None = None,
        unknown: UnknownPair = "error",
        label: str | None = None,
    ) -> np.ndarray:
        """Score pairs ``[n]``; see `cove_dist.inference.run.Run.score`."""
        if (users is None) == (sequences is None):
            raise ConfigError("score: give either users or sequences, and items, as many of them")
        if label is not None and sequences is not None:
            raise ConfigError(f"label = {label}: sequences have no labels; leave it out")
        check_choice("unknown", unknown, "error", "skip", "oov_row")
        if sequences is not None and columns:
            raise ConfigError(f"columns = {', '.join(columns)}: sequences have none; leave them out")
        item_ids = as_array(items, "items")
        of_items = self._rows("item", item_ids, unknown)
        known = of_items >= 0
        if sequences is not None:
            _same_length("sequences", sequences, item_ids)
            given = self._sequences(sequences, unknown)
            known &= np.array([len(each) > 0 for each in given], dtype=bool)
            found = self.inference.score_after([given[row] for row in np.flatnonzero(known)], of_items[known])
        else:
            user_ids = as_array(users, "users")
            _same_length("users", user_ids, item_ids)
            of_users = self._rows("user", user_ids, unknown)
            known &= of_users >= 0
            context = self.context(columns or {}, len(item_ids), known)
            score = self.inference.score if label is None else partial(self.inference.score_label, label)
            found = score(of_users[known], of_items[known], context)
        FiniteScores().update(torch.from_numpy(found))  # NaN stands for a pair that is unknown
        scores = np.full(len(item_ids), np.nan, np.float32)
        scores[known] = found
        return scores

    def recommend(
        self,
        users: Iterable[Any] | Literal["all"] | None = None,
        k: int = 10,
        *,
        sequences: Sequence[Sequence[Any]] | None = None,
        unknown: Unknown = "error",
        history: Literal["remove", "keep"] = "remove",
        columns: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """List items; see `cove_dist.inference.run.Run.recommend`."""
        if (users is None) == (sequences is None):
            raise ConfigError("recommend: give either users or sequences")
        check_choice("unknown", unknown, "error", "skip", "popular", "oov_row")
        check_choice("history", history, "remove", "keep")
        check_count("k", k)
        if unknown == "oov_row":
            entity: Entity = "item" if users is None else "user"  # a sequence has no row, but its items have
            check_oov_row(self.config, self.schema, entity, "error, skip, popular")
        if sequences is not None and columns:
            raise ConfigError(f"columns = {', '.join(columns)}: sequences have none; leave them out")
        k = listed_items(k, self.schema)
        request: OfUsers | OfSequences
        if sequences is not None:
            request = OfSequences(self.inference, self._sequences(sequences, unknown, "popular"))
        else:
            request = self._of_users(users, columns or {}, unknown)
        seen = np.flatnonzero(request.known)
        parts = np.array_split(seen, -(-len(seen) // _USERS)) if len(seen) else []
        tables = []
        listed = request.lists(parts, k, repeat=history == "keep")
        for rows, lists in zip(parts, listed, strict=False):  # without parts nothing is read
            if empty := int((lists.items < 0).all(axis=1).sum()):
                logger.info("%d of %d lists are empty: all items are in the history", empty, len(rows))
            tables.append(self._table(request, rows, lists))
        return pa.concat_tables([*tables, self._rest(request, k, unknown)])

    def _of_users(self, users: Any, columns: Mapping[str, Any], unknown: Unknown) -> OfUsers:
        keys = self.seen_ids("user") if _is_all(users) else as_array(users, "users")
        encoded = self._encoded("users", self.users, keys, unknown, "popular")
        context = self.context({name: [value] for name, value in columns.items()}, 1, np.ones(1, bool))
        return OfUsers(self.inference, keys, encoded, self.users.column.num_seen, context)

    def _rest(self, request: OfUsers | OfSequences, k: int, unknown: Unknown) -> pa.Table:
        """List the same items for everything that is not known; nothing if it is left out."""
        rows = np.flatnonzero(~request.known)
        one = Lists(np.empty((1, 0)), np.empty((1, 0), np.int64))
        if len(rows) and unknown == "popular":
            items = most_frequent(self.data, self.schema, k)[np.newaxis]
            one = Lists(np.full(items.shape, np.nan), items)
        elif len(rows) and unknown == "oov_row":
            one = request.list_of_unseen(k)
        elif len(rows):
            logger.info("Left out %d of %d %ss unknown to training", len(rows), len(request.known), request.name)
        return self._table(request, rows, Lists(*(np.repeat(each, len(rows), axis=0) for each in one)))

    def context(self, columns: Mapping[str, Any], rows: int, known: np.ndarray) -> ContextFeatures:
        """Encode further columns of rows; see `inference.context.encode_context`."""
        return encode_context(self.id_tables, self.schema, self.inference.required_context(), columns, rows, known)

    def embeddings(self, entity: Entity) -> pa.Table:
        """Return ``original_id`` and ``embedding`` (d float32); see `cove_dist.inference.run.Run.embeddings`."""
        check_choice("entity", entity, "user", "item")
        vectors = self.inference.vectors(entity)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        return pa.table({"original_id": self.seen_ids(entity), "embedding": values})

    def codes(self, entity: Entity) -> pa.Table:
        """Return ``original_id`` and ``code_1 … code_H``; see `cove_dist.inference.run.Run.codes`."""
        check_choice("entity", entity, "user", "item")
        codes = self.inference.codes(entity).astype(np.int32)
        levels = {f"code_{level}": pa.array(column) for level, column in enumerate(codes.T, start=1)}
        return pa.table({"original_id": self.seen_ids(entity), **levels})

    def seen_ids(self, entity: Entity) -> pa.Array:
        """Return the original ids of all users or items seen in training, in the order of their vectors."""
        table = self.table(entity)
        return table.original[: table.column.num_seen]

    def _rows(self, entity: Entity, values: pa.Array, unknown: UnknownPair) -> np.ndarray:
        """Return table rows: of unseen ids those of their hash buckets or, without buckets, as `_encoded`.

        Raises:
            ConfigError: Ids are unknown, or their out-of-vocabulary row means nothing.
        """
        table = self.table(entity)
        rows = table.rows(values) if table.column.buckets else self._encoded(f"{entity}s", table, values, unknown)
        if unknown == "oov_row" and not table.known(rows).all():
            check_oov_row(self.config, self.schema, entity, "error, skip")
        return rows

    def _encoded(self, what: str, table: IdTable, values: Any, unknown: str, *further: str) -> np.ndarray:
        """Return encoded ids, with -1 for unseen ids if the policy allows them."""
        encoded = table.encode(values)
        if unknown == "error":
            table.require_known(encoded, values, what, " or ".join(f"unknown={each}" for each in ("skip", *further)))
        return np.where(table.known(encoded), encoded, table.column.num_seen if unknown == "oov_row" else -1)

    def _sequences(self, sequences: Sequence[Sequence[Any]], unknown: str, *further: str) -> list[np.ndarray]:
        """Return sequences of encoded items, without unknown items if the policy allows them."""
        given = [_ids_of(each) for each in sequences]
        if not given:
            return []
        lengths = [len(each) for each in given]
        encoded = self._encoded("sequences", self.items, [item for each in given for item in each], unknown, *further)
        if unknown == "oov_row" and not self.items.known(encoded).all():
            check_oov_row(self.config, self.schema, "item", ", ".join(("error", "skip", *further)))
        parts = np.split(encoded, np.cumsum(lengths)[:-1])
        return [part[part >= 0] for part in parts]

    def _table(self, request: OfUsers | OfSequences, rows: np.ndarray, lists: Lists) -> pa.Table:
        """Return a row for every item listed for rows of a request; the score of the most frequent items is null."""
        lines, places = np.nonzero(lists.items >= 0)
        scores = lists.scores[lines, places].astype(np.float32)
        return pa.table(
            {
                request.name: request.keys.take(pa.array(rows[lines])),
                "rank": pa.array(places + 1, pa.int32()),
                "item": self.items.decode(lists.items[lines, places]),
                "score": pa.array(scores, mask=np.isnan(scores)),
            }
        )


def _is_all(users: Any) -> bool:
    return isinstance(users, str) and users == "all"


def _ids_of(sequence: Any) -> Sequence[Any]:
    """Return the ids of one sequence."""
    if isinstance(sequence, list | tuple):
        return sequence
    return as_array(sequence, "one of sequences").to_pylist()


def _same_length(what: str, given: Sequence[Any], items: Sequence[Any]) -> None:
    if len(given) != len(items):
        raise ConfigError(f"score: {len(given)} {what} and {len(items)} items; give an item for each")
