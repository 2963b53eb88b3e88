"""Cluster the items of sequences that are near each other in training: categories for data sets without any.

Skip-gram vectors with negative sampling factorize the shifted pointwise mutual information of items and their
neighbors (Levy and Goldberg, NeurIPS 2014). This module factorizes the positive part of that matrix directly, by a
truncated SVD, and clusters the vectors, scaled to length 1, by k-means. Validation and test are not used.

Shapes: ``n`` entries of all sequences, ``S`` sequences, ``V`` items, ``d`` components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans

from data_pipeline.digests import digest_file
from data_pipeline.errors import DataError
from data_pipeline.files import replaced_file
from data_pipeline.id_tables import read_original_ids
from data_pipeline.integrity import checked_file
from data_pipeline.parquet_files import write_parquet
from data_pipeline.schema import INPUT, TARGET, Schema
from data_pipeline.streaming.row_groups import read_footers, read_split
from data_pipeline.types import NonNegativeInt, PositiveInt, Text

COLUMN = "neighbourhood"


@dataclass(frozen=True)
class ClusterSettings:
    """Settings of `write_item_clusters`.

    Attributes:
        path: The prepared folder.
        clusters: Number of clusters.
        dim: Components ``d`` of an item's vector.
        window: The greatest distance of neighbors, in positions.
        negatives: Shifts the mutual information by its logarithm, as sampling this many negatives would.
        seed: Seed of the SVD and of k-means.
    """

    path: Text
    clusters: PositiveInt
    dim: PositiveInt = 64
    window: PositiveInt = 5
    negatives: PositiveInt = 5
    seed: NonNegativeInt = 0


def write_item_clusters(settings: ClusterSettings) -> tuple[Path, list[int]]:
    """Cluster the items of prepared sequences and write ``categories/<items>.parquet``: id, original_id, the cluster.

    Other categories in that file are kept; the clusters of an earlier call are replaced.

    Returns:
        The file, and the sizes of the clusters in increasing order.

    Raises:
        DataError: The rows are not sequences, or there are no more items than clusters or components.
    """
    folder = Path(settings.path)
    schema = Schema.load(folder)
    values, offsets = training_sequences(folder, schema)
    item = schema.entity("item")
    for name, number in (("clusters", settings.clusters), ("dim", settings.dim)):
        if number >= item.num_seen:
            raise DataError(
                f"{name} = {number}: must be less than the {item.num_seen} items in training of {folder}. Lower it"
            )
    groups = cluster(skip_gram_vectors(values, offsets, item.num_seen, settings), settings)
    path = folder / "categories" / f"{item.table_name}.parquet"
    path.parent.mkdir(exist_ok=True)
    originals = read_original_ids(folder, item.table_name)
    ids = pa.table({"id": np.arange(len(originals)), "original_id": originals})
    table = ids.slice(0, item.num_seen).append_column(COLUMN, pa.array(groups))
    if path.exists():
        known = pq.read_table(checked_file(folder, f"categories/{path.name}"))
        known = known.drop_columns([name for name in ("original_id", COLUMN) if name in known.column_names])
        table = ids.join(table.drop_columns("original_id"), "id").join(known, "id").sort_by("id")
    with replaced_file(path) as file:
        write_parquet(table, file)
    if schema.digests:
        name = path.relative_to(folder).as_posix()
        replace(schema, digests=dict(sorted({**schema.digests, name: digest_file(path)}.items()))).save(folder)
    return path, sorted(np.bincount(groups, minlength=settings.clusters).tolist())


def training_sequences(folder: Path, schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Read the sequences of training, inputs and targets joined: int64 values ``[n]`` and offsets ``[S + 1]``.

    Raises:
        DataError: The rows are not sequences.
    """
    names = [column.name for column in schema.categorical if column.sequence]
    if not {INPUT, TARGET} <= set(names):
        raise DataError(
            f"{folder}: its rows are not sequences with {INPUT} and {TARGET}; its columns of lists:"
            f" {', '.join(names) or 'none'}. Give the folder of prepared playlists or sequences"
        )
    values, lengths = [], []
    for part in read_split(read_footers(folder, schema, "train"), schema):
        sequences = dict(zip(names, part.sequences, strict=True))
        halves = [sequences[name] for name in (INPUT, TARGET)]
        rows_of = np.concatenate([np.repeat(np.arange(len(part)), np.diff(offsets)) for _, offsets in halves])
        values.append(np.concatenate([items for items, _ in halves])[np.argsort(rows_of, kind="stable")])
        lengths.append(np.bincount(rows_of, minlength=len(part)))
    return np.concatenate(values), np.concatenate([[0], np.cumsum(np.concatenate(lengths))])


def skip_gram_vectors(values: np.ndarray, offsets: np.ndarray, num_items: int, settings: ClusterSettings) -> np.ndarray:
    """Return singular vectors times the square roots of their values (Levy and Goldberg, section 4.2): ``[V, d]``."""
    information = shifted_information(values, offsets, num_items, settings.window, settings.negatives)
    rng = np.random.default_rng(settings.seed)
    left, singular, _ = svds(information, k=settings.dim, v0=rng.standard_normal(num_items))
    return left * np.sqrt(singular)


def shifted_information(
    values: np.ndarray, offsets: np.ndarray, num_items: int, window: int, negatives: int
) -> csr_matrix:
    """Return ``max(log(#(i, j) * D / (#(i) * #(j))) - log(negatives), 0)`` over the D neighbor pairs: ``[V, V]``."""
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
    """Return the cluster of each row, int64 ``[V]``. Rows of zeros (items without informative neighbors) share one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    means = KMeans(settings.clusters, n_init=3, random_state=settings.seed)
    return means.fit_predict(vectors / np.maximum(norms, np.finfo(vectors.dtype).tiny)).astype(np.int64)
