"""The fields of click-through rate models: columns of one id per row, and columns of lists of ids, which are pooled.

TorchRec pools the lists of most tables. A table is looked up row by row instead if the rows of its lists are needed one
by one: for their maximum, for a quantizer, or for a head that attends to them.

Shapes: ``B`` rows, ``d`` embedding dimension, ``n`` entries of all lists of a column, ``T`` entries of its longest one
in the data, ``F`` fields that are vectors, ``S`` columns of lists that a head attends to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingCollection,
    get_embedding_names_by_table,
)
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from cove_dist.embeddings.tables import (
    FIRST_ORDER_DIM,
    FIRST_ORDER_SUFFIX,
    META,
    base_table,
    build_unpooled,
    columns_by_table,
)
from cove_dist.types import Pooling
from data_pipeline.schema import Categorical

Vectors: TypeAlias = dict[str, torch.Tensor]


class LookedUp(NamedTuple):
    """What `FieldTables` return.

    Attributes:
        pooled: Sums of the rows of every list; None without such tables.
        rows: The row of every id.
    """

    pooled: Any  # a `KeyedTensor`, or one that sharded tables will return
    rows: Any  # the same of a mapping to `JaggedTensor`

    def wait(self) -> LookedUp:
        """Wait for what sharded tables return."""
        return LookedUp(None if self.pooled is None else self.pooled.wait(), self.rows.wait())


class FieldTables(nn.Module):
    """Tables whose look-ups TorchRec pools, and tables whose look-ups return a row per id.

    Args:
        bags: The former, with all first-order weights; None: there are none.
        rows: The latter.
    """

    def __init__(self, bags: EmbeddingBagCollection | None, rows: EmbeddingCollection) -> None:
        super().__init__()
        self.bags = bags
        self.rows = rows

    def forward(self, ids: KeyedJaggedTensor) -> LookedUp:
        """Look up the ids of all columns."""
        return LookedUp(None if self.bags is None else self.bags(ids), self.rows(ids))


Bags: TypeAlias = EmbeddingBagCollection | FieldTables
Tables: TypeAlias = Bags | EmbeddingCollection


def table_modules(tables: nn.Module) -> dict[str, nn.EmbeddingBag | nn.Embedding]:
    """Return the module of every table of one or several collections, by its name."""
    found: dict[str, Any] = {}
    for collection in tables.modules():
        if isinstance(collection, EmbeddingBagCollection):
            found |= collection.embedding_bags
        elif isinstance(collection, EmbeddingCollection):
            found |= collection.embeddings
    return found


def table_configs(tables: nn.Module) -> dict[str, EmbeddingBagConfig | EmbeddingConfig]:
    """Return the configuration of every table of one or several collections, by its name."""
    found: dict[str, EmbeddingBagConfig | EmbeddingConfig] = {}
    for collection in tables.modules():
        if isinstance(collection, EmbeddingBagCollection):
            found |= {config.name: config for config in collection.embedding_bag_configs()}
        elif isinstance(collection, EmbeddingCollection):
            found |= {config.name: config for config in collection.embedding_configs()}
    return found


def build_field_tables(
    columns: Sequence[Categorical], dim: int, first_order: bool, by_row: Collection[str] = ()
) -> Bags:
    """Build tables ``[num_rows, dim]`` of columns; with ``first_order`` also a scalar weight per id.

    The scalar is stored in `FIRST_ORDER_DIM` equal columns: all start at zero and get the gradient of the scalar
    (`one_scalar`), so they stay equal, and each changes like one number under every optimizer and weight decay. In the
    norm of all gradients a scalar counts twice.

    Args:
        columns: Columns of one id per row, and of lists.
        dim: Embedding dimension.
        first_order: Whether ids have a scalar weight.
        by_row: Names of tables whose look-ups return a row per id; empty: all are pooled, in one collection.
    """
    tables = columns_by_table(columns)
    shapes = {name: dim for name in tables if name not in by_row}
    if first_order:
        shapes |= {name + FIRST_ORDER_SUFFIX: FIRST_ORDER_DIM for name in tables}
    configs = [
        EmbeddingBagConfig(
            name=name,
            embedding_dim=table_dim,
            num_embeddings=tables[base_table(name)][0].num_rows,
            feature_names=[column.name for column in tables[base_table(name)]],
            pooling=PoolingType.SUM,
        )
        for name, table_dim in shapes.items()
    ]
    bags = EmbeddingBagCollection(tables=configs, device=META) if configs else None
    if not by_row:
        assert bags is not None, "a model has columns"
        return bags
    return FieldTables(bags, build_unpooled([column for column in columns if column.table_name in by_row], dim))


class FieldReader:
    """Reads fields from what tables return, by key, as the order of a `KeyedTensor` is that of the sharding plan.

    Args:
        tables: Tables of the columns.
        columns: All columns, in schema order.
        pooling: Pooling by column of lists; none for lists that the head attends to.
    """

    def __init__(self, tables: Bags, columns: Sequence[Categorical], pooling: Mapping[str, Pooling]) -> None:
        bags = tables if isinstance(tables, EmbeddingBagCollection) else tables.bags
        configs = [] if bags is None else bags.embedding_bag_configs()
        key_of = {
            (config.name, feature): key
            for config, keys in zip(configs, get_embedding_names_by_table(configs), strict=True)
            for feature, key in zip(config.feature_names, keys, strict=True)
        }
        self._columns, self._pooling = list(columns), dict(pooling)
        self._keys = {c.name: key_of.get((c.table_name, c.name)) for c in columns}
        first = {c.name: key_of.get((c.table_name + FIRST_ORDER_SUFFIX, c.name)) for c in columns}
        self.first_order_keys = {name: key for name, key in first.items() if key is not None}
        attended = [column for column in columns if column.sequence and column.name not in pooling]
        self.attended, self._longest = [c.name for c in attended], max((c.max_length for c in attended), default=0)

    def vectors(self, looked_up: KeyedTensor | LookedUp, rows: int) -> Vectors:
        """Return by column the vectors ``[B, d]`` of ids and of sums over lists, or ``[n, d]`` of the entries of lists.

        ``rows`` is B; later rows pad ranks to equal lengths.
        """
        pooled, by_row = looked_up if isinstance(looked_up, LookedUp) else (looked_up, {})
        by_key = {} if pooled is None else pooled.to_dict()
        return {name: by_row[name].values() if key is None else by_key[key][:rows] for name, key in self._keys.items()}

    def fields(self, vectors: Vectors, ids: KeyedJaggedTensor, rows: int) -> torch.Tensor:
        """Return the fields ``[B, F, d]``, lists pooled, in schema order, without the lists that a head attends to."""
        fields = []
        for column in self._columns:
            name = column.name
            if not column.sequence:
                fields.append(vectors[name])
            elif name in self._pooling and self._keys[name] is None:
                entries = padded(vectors[name], lengths_of(ids, name, rows), column.max_length)
                fields.append(pool(*entries, self._pooling[name]))
            elif name in self._pooling:
                fields.append(self._scaled(vectors[name], ids, name))
        return torch.stack(fields, dim=1)

    def histories(self, vectors: Vectors, ids: KeyedJaggedTensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the entries of the lists that a head attends to ``[B, S, T, d]``, and their mask ``[B, S, T]``."""
        lists = [padded(vectors[name], lengths_of(ids, name, rows), self._longest) for name in self.attended]
        entries, present = zip(*lists, strict=True)
        return torch.stack(entries, dim=1), torch.stack(present, dim=1)

    def first_order(self, looked_up: KeyedTensor | LookedUp, ids: KeyedJaggedTensor, rows: int) -> torch.Tensor:
        """Return the scalar weights ``[B, F + S]``: of lists their sum if sums are pooled, otherwise their mean."""
        pooled = looked_up.pooled if isinstance(looked_up, LookedUp) else looked_up
        assert pooled is not None, "first-order weights are in bags"
        by_key = pooled.to_dict()
        weights = []
        for column in self._columns:
            weight = one_scalar(by_key[self.first_order_keys[column.name]][:rows])
            weights.append(self._scaled(weight, ids, column.name) if column.sequence else weight)
        return torch.cat(weights, dim=1)

    def _scaled(self, sums: torch.Tensor, ids: KeyedJaggedTensor, name: str) -> torch.Tensor:
        """Return sums over lists ``[B, …]``, divided by the lengths of the lists unless sums are pooled."""
        if self._pooling.get(name) == "sum":
            return sums
        return sums / lengths_of(ids, name, len(sums)).clamp(min=1).unsqueeze(1)


def one_scalar(columns: torch.Tensor) -> torch.Tensor:
    """Return the scalar ``[B, 1]`` that equal ``columns [B, n]`` hold; each column gets the gradient of the scalar.

    With the gradient of their mean, an n-th of it, weight decay would be n times as strong beside it.
    """
    total = columns.sum(dim=1, keepdim=True)
    return columns.mean(dim=1, keepdim=True).detach() + (total - total.detach())


def lengths_of(ids: KeyedJaggedTensor, name: str, rows: int) -> torch.Tensor:
    """Return the lengths of the lists of a column, int64 ``[B]``, without the padding of ranks."""
    return ids[name].lengths()[:rows]


def padded(entries: torch.Tensor, lengths: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the entries of lists.

    Args:
        entries: Vectors ``[n, d]`` of the entries, list after list.
        lengths: Lengths of the lists ``[B]``, at most T.
        width: T. It is the same for every batch, so that no length has to be read from the device.

    Returns:
        Vectors ``[B, T, d]``, zero behind a list, and the mask of the entries, bool ``[B, T]``.

    Example:
        >>> padded(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1, 0, 2]), 2)[0].squeeze(2).tolist()
        [[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]
    """
    dense = JaggedTensor(entries, lengths=lengths).to_padded_dense(width)
    return dense, torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)


def pool(entries: torch.Tensor, present: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool the entries of every list; an empty list gives zeros.

    Args:
        entries: Vectors ``[B, T, d]``.
        present: Which entries exist, bool ``[B, T]``.
        pooling: Sum, mean or maximum, by component.

    Returns:
        Vectors ``[B, d]``.
    """
    mask = present.unsqueeze(2)
    if pooling == "max":
        largest = entries.masked_fill(~mask, -torch.inf).amax(dim=1)
        return largest.masked_fill(~present.any(dim=1, keepdim=True), 0.0)
    total = entries.masked_fill(~mask, 0.0).sum(dim=1)
    return total if pooling == "sum" else total / present.sum(dim=1, keepdim=True).clamp(min=1)
