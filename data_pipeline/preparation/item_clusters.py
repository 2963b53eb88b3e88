"""Categories for items that come with none: clusters of items that stand near each other in the lists of training.

Skip-gram vectors with negative sampling factorize the shifted pointwise mutual information of items and their
neighbours (Levy and Goldberg, NeurIPS 2014). Here that matrix is factorized directly, its positive part by a truncated
SVD, and k-means groups the vectors, scaled to length 1. Validation and test have no part in it.

Shapes: ``n`` items of all lists, ``L`` lists, ``V`` items, ``d`` components.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Gt, MinLen
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans

from data_pipeline.errors import DataError
from data_pipeline.schema import INPUT, TARGET, Schema
from data_pipeline.streaming.row_groups import read_footers, read_split

COLUMN = "neighbourhood"
Positive = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class ClusterSettings:
    """What is clustered, and how.

    Attributes:
        path: the prepared folder.
        clusters: groups there are to be.
        dim: ``d``.
        window: items are neighbours up to so many places apart.
        negatives: the mutual information is shifted by the logarithm of this, as if so many negatives were sampled.
        seed: of the SVD and of k-means.
    """

    path: Annotated[str, MinLen(1)]
    clusters: Positive
    dim: Positive = 64
    window: Positive = 5
    negatives: Positive = 5
    seed: Annotated[int, Ge(0)] = 0


def write_item_clusters(settings: ClusterSettings) -> tuple[Path, list[int]]:
    """Cluster the items of prepared lists and write ``categories/<items>.parquet``: id, original_id, the cluster.

    Other categories in that file stay; those of an earlier call are replaced.

    Returns:
        The file, and the clusters' sizes from small to large.

    Raises:
        DataError: the data is not of lists, or has no more items than clusters or components.
    """
    folder = Path(settings.path)
    schema = Schema.load(folder)
    values, offsets = training_lists(folder, schema)
    item = schema.entity("item")
    for name, wanted in (("clusters", settings.clusters), ("dim", settings.dim)):
        if wanted >= item.num_seen:
            raise DataError(f"{folder}: {item.num_seen} items in training, no more than {name} = {wanted}; lower it")
    groups = cluster(skip_gram_vectors(values, offsets, item.num_seen, settings), settings)
    path = folder / "categories" / f"{item.table_name}.parquet"
    path.parent.mkdir(exist_ok=True)
    ids = pq.read_table(folder / "ids" / f"{item.table_name}.parquet", columns=["id", "original_id"])
    table = ids.slice(0, item.num_seen).append_column(COLUMN, pa.array(groups))
    if path.exists():
        known = pq.read_table(path)
        known = known.drop_columns([name for name in ("original_id", COLUMN) if name in known.column_names])
        table = ids.join(table.drop_columns("original_id"), "id").join(known, "id").sort_by("id")
    pq.write_table(table, path)
    return path, sorted(np.bincount(groups, minlength=settings.clusters).tolist())


def training_lists(folder: Path, schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Whole lists of training, input and target halves together: int64 values ``[n]`` and offsets ``[L + 1]``.

    Raises:
        DataError: the data is not of lists.
    """
    names = [column.name for column in schema.categorical if column.sequence]
    if not {INPUT, TARGET} <= set(names):
        raise DataError(f"{folder}: holds no lists to be continued; its columns of lists: {', '.join(names) or 'none'}")
    values, lengths = [], []
    for part in read_split(read_footers(folder, schema, "train"), schema):
        sequences = dict(zip(names, part.sequences, strict=True))
        halves = [sequences[name] for name in (INPUT, TARGET)]
        rows_of = np.concatenate([np.repeat(np.arange(len(part)), np.diff(offsets)) for _, offsets in halves])
        values.append(np.concatenate([items for items, _ in halves])[np.argsort(rows_of, kind="stable")])
        lengths.append(np.bincount(rows_of, minlength=len(part)))
    return np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(lengths))])


def skip_gram_vectors(values: np.ndarray, offsets: np.ndarray, num_items: int, settings: ClusterSettings) -> np.ndarray:
    """Singular vectors, times the square roots of their values (Levy and Goldberg, section 4.2): ``[V, d]``."""
    information = shifted_information(values, offsets, num_items, settings.window, settings.negatives)
    rng = np.random.default_rng(settings.seed)
    left, singular, _ = svds(information, k=settings.dim, v0=rng.standard_normal(num_items))
    return left * np.sqrt(singular)


def shifted_information(
    values: np.ndarray, offsets: np.ndarray, num_items: int, window: int, negatives: int
) -> csr_matrix:
    """``max(log(#(i, j) * D / (#(i) * #(j))) - log(negatives), 0)`` over the D pairs of neighbours: ``[V, V]``."""
    which = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = csr_matrix((num_items, num_items))
    for distance in range(1, window + 1):
        together = which[distance:] == which[:-distance]
        pair = values[:-distance][together], values[distance:][together]
        counts += csr_matrix((np.ones(together.sum()), pair), shape=counts.shape)
    counts = (counts + counts.T).tocoo()
    single = np.bincount(counts.row, weights=counts.data, minlength=num_items)
    expected = single[counts.row] * single[counts.col] / single.sum()
    shifted = np.log(counts.data / expected) - np.log(negatives)
    kept = shifted > 0
    return csr_matrix((shifted[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape)


def cluster(vectors: np.ndarray, settings: ClusterSettings) -> np.ndarray:
    """The cluster of each row, int64 ``[V]``. Rows of zeros, items without telling neighbours, share one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    means = KMeans(settings.clusters, n_init=3, random_state=settings.seed)
    return means.fit_predict(vectors / np.maximum(norms, np.finfo(vectors.dtype).tiny)).astype(np.int64)
