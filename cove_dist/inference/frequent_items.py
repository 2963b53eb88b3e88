"""The most frequent items of training, recommended for unseen ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from data_pipeline.schema import Schema
from data_pipeline.streaming.vocabulary import item_counts


def most_frequent(folder: Path | str, schema: Schema, k: int) -> np.ndarray:
    """Return the k encoded items with the most training rows; of equal counts, lower ids first.

    For labelled examples, only those with label 1 count. Labels of encoded data may be of any type, bool included.
    """
    item = schema.entity("item")
    if item.sequence:
        counts = item_counts(folder, schema)
    else:
        files = [str(Path(folder) / name) for name in schema.splits["train"].files]
        positive = None if schema.label is None else ds.field(schema.label).cast(pa.float32()) == 1
        counts = np.zeros(item.num_seen, np.int64)
        for batch in ds.dataset(files).to_batches(columns=[item.name], filter=positive):
            ids = batch.column(0).to_numpy()
            np.add.at(counts, ids[ids < len(counts)], 1)  # ids that are too rare come after
    return np.argsort(-counts, kind="stable")[:k]
