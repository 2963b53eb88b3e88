"""Categories for sampling category negatives: codes of the items, recomputed before every epoch.

Shapes: ``I`` items seen in training, ``n`` items of one look-up, ``d`` width of a table row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cove_dist.config import RunConfig
from cove_dist.distributed import batches_of_block, world
from cove_dist.embeddings.lookup import look_up
from cove_dist.errors import ConfigError
from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.kmeans import kmeans
from cove_dist.quantization.replicas import ALONE, generator
from cove_dist.quantization.search import nearest_code
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.category_config import CategoryConfig
from data_pipeline.integrity import checked_file
from data_pipeline.schema import Schema, category_kinds

_AT_ONCE = 1 << 17  # items per look-up
_CLUSTERED = 1 << 16  # maximum number of items for fitting k-means
_KMEANS, _RANDOM = 1, 2  # second word of a seed


@dataclass(frozen=True)
class CategorySource:
    """Settings of the item codes.

    Attributes:
        codes: "kmeans": k-means over the item table's rows; "quantizer": the codes of the run's item quantizer;
            "data": the data's own categories, see `known_codes`; "random": a fixed random code per item, as a control.
        count: Number of codes, unless they are the quantizer's.
        level: Index into the quantizer's levels whose codes are used.
        seed: Seed of k-means and of random codes.
        folder: Folder of the prepared data.
        first_epoch: First epoch with codes, from 0; see `CategoryConfig.first_epoch`.
    """

    codes: str
    count: int
    level: int
    seed: int
    folder: str
    first_epoch: int = 1

    @classmethod
    def of(cls, settings: CategoryConfig, config: RunConfig) -> CategorySource:
        """Return the source that a run's settings name."""
        codes, count, level = settings.category_codes, settings.category_count, settings.category_level
        return cls(codes, count, level, config.seed, config.data.path, settings.first_epoch(config))


class CategoryRenewal:
    """Recomputes item codes before every epoch from ``first_epoch`` on, and passes them to the loader.

    Every rank codes a block of the items, and one byte per item (four from 257 codes on) is gathered. Every rank
    computes the centres of k-means from the same rows, so they do not depend on the number of ranks.

    The codes are part of the checkpoint, so a resumed epoch draws the same negatives.

    Args:
        source: Settings of the codes.
        model: The run's sharded model.
        use: Receives the codes ``[I]``, uint8 or, from 257 codes on, int32, when they are known and when they change.
        schema: Schema of the data.
        device: Device of the tables.

    Raises:
        ConfigError: The data have no categories of items, which are to be used, or fewer items than codes.
    """

    def __init__(
        self,
        source: CategorySource,
        model: TaskModel,
        use: Callable[[np.ndarray], None],
        schema: Schema,
        device: torch.device,
    ) -> None:
        self._source, self._model, self._use, self._device = source, model, use, device
        self._lookup, num_items = model.entity_lookup("item", schema), schema.entity("item").num_seen
        self._fixed = _fixed_codes(source, schema)
        count = source.count if source.codes != "quantizer" else self._quantizer.levels[source.level]
        if source.codes in ("kmeans", "random") and count >= num_items:
            raise ConfigError(
                f"negatives.category_count = {count}: the data {schema.name} have {num_items} items, so categories"
                " would hold one item or none; 4 to 20 categories are usual"
            )
        self._codes = torch.zeros(num_items, dtype=torch.uint8 if count <= 256 else torch.int32, device="cpu")
        self._known = torch.zeros((), dtype=torch.bool, device="cpu")

    @torch.no_grad()
    def start_epoch(self, epoch: int) -> None:
        """Recompute the codes from the current tables. Collective."""
        if epoch < self._source.first_epoch:
            return
        if self._fixed is not None:
            self._set(torch.from_numpy(self._fixed).to(self._codes.dtype))
            return
        model, was_training = self._model, self._model.training
        model.eval()
        self._set(self._coded(epoch))
        model.train(was_training)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the codes ``[I]``, and whether they exist yet; the same on every rank."""
        return {"codes": self._codes, "known": self._known}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore the codes of an epoch."""
        if bool(state["known"]):
            self._set(state["codes"])

    def _set(self, codes: torch.Tensor) -> None:
        self._codes, self._known = codes, torch.ones((), dtype=torch.bool, device="cpu")
        self._use(codes.numpy())

    @property
    def _count(self) -> int:
        return len(self._codes)

    @property
    def _quantizer(self) -> CascadedQuantizer:
        return self._model.objective.quantizers["item"]

    def _coded(self, epoch: int) -> torch.Tensor:
        """Return the codes of all items ``[I]``, on the CPU. Collective."""
        centres = self._centres(epoch) if self._source.codes == "kmeans" else None
        parts = []
        for items in batches_of_block(torch.arange(self._count, device=self._device), _AT_ONCE, world()):
            rows = self._rows(items)
            if centres is None:
                codes = self._quantizer(rows).codes[:, self._source.level]
            else:
                codes = nearest_code(rows, centres)
            parts.append(codes.to(self._codes.dtype))
        longest = -(-self._count // world().size)
        return world().gather_padded(torch.cat(parts), 0, longest)[: self._count].cpu()

    def _centres(self, epoch: int) -> torch.Tensor:
        """Return the centres ``[count, d]``, or fewer where fewer rows are distinct. Collective."""
        key = (self._source.seed, _KMEANS, epoch)
        drawn = np.random.default_rng(key).choice(self._count, min(self._count, _CLUSTERED), replace=False)
        rows = self._rows(torch.from_numpy(np.sort(drawn)).to(self._device))
        weights = torch.ones_like(rows[:, 0])
        return kmeans(rows, weights, self._source.count, ALONE, generator(rows.device, *key))[0]

    def _rows(self, items: torch.Tensor) -> torch.Tensor:
        """Return the table rows ``[n, d]`` of ``items [n]``. Collective."""
        columns = self._lookup.columns
        column = columns[self._lookup.position]
        return look_up(self._model.tables, columns, {column: items})[column]


def _fixed_codes(source: CategorySource, schema: Schema) -> np.ndarray | None:
    """Return the codes ``[I]`` that do not depend on the tables; None if they do."""
    if source.codes == "random":
        size = schema.entity("item").num_seen
        return np.random.default_rng([source.seed, _RANDOM]).integers(source.count, size=size)
    return known_codes(source.folder, schema, source.count) if source.codes == "data" else None


def known_codes(folder: str, schema: Schema, count: int) -> np.ndarray:
    """Return a code of every item from the categories in the data, of which an item may have any number.

    Of the ``count - 1`` categories with most items an item has the rarest one that it belongs to; items of none of them
    share code 0.

    Args:
        folder: Folder of the prepared data.
        schema: Schema of the data.
        count: Largest number of codes.

    Returns:
        int64 ``[I]``, below ``count``.

    Raises:
        ConfigError: The data have no categories of items.
    """
    item = schema.entity("item")
    name = f"categories/{item.table_name}.parquet"
    if not (Path(folder) / name).is_file():
        raise ConfigError(
            f"negatives.category_codes = data: {schema.name} has no categories of items; allowed: kmeans, quantizer,"
            " random"
        )
    table = pq.read_table(checked_file(folder, name))
    edges = [_edges(table, kind) for kind in category_kinds(table.column_names)]
    names, numbers = np.unique(np.concatenate([names for _, _, names in edges]), return_inverse=True)
    sizes = np.array([len(names) for _, _, names in edges])
    starts = np.cumsum(sizes) - sizes  # of a column's names among all
    items = np.concatenate([items for items, _, _ in edges])
    kinds = np.concatenate([numbers[start:][own] for start, (_, own, _) in zip(starts, edges, strict=True)])
    items, kinds = items[items < item.num_seen], kinds[items < item.num_seen]
    largest = np.argsort(-np.bincount(kinds, minlength=len(names)), kind="stable")[: count - 1]
    codes_of_kinds = np.zeros(len(names), np.int64)
    codes_of_kinds[largest] = np.arange(1, len(largest) + 1)
    codes = np.zeros(item.num_seen, np.int64)
    np.maximum.at(codes, items, codes_of_kinds[kinds])
    return codes


def _edges(table: pa.Table, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the categories in one column: the item of each, its index into the distinct names, and these names."""
    column, ids = table[kind].combine_chunks(), table["id"].to_numpy()
    if pa.types.is_list(column.type):
        ids, column = ids[column.value_parent_indices().to_numpy()], column.flatten()
    given = column.is_valid().to_numpy(zero_copy_only=False)
    encoded = column.drop_null().cast(pa.string()).dictionary_encode()
    names = np.asarray([f"{kind}: {name}" for name in encoded.dictionary.to_pylist()], dtype=object)
    return ids[given], encoded.indices.to_numpy(), names
