"""Interactions with planted categories, of any size, so that recovered codes can be scored against the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE, ITEM, USER, Columns
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.types import NonNegativeFloat, PositiveInt

_LATENT = 8  # dimensions of a category's hidden vector
_DRAWS = 4  # uniform numbers per row: what one step of the Philox counter yields
_FIRST_SECOND, _JITTER_SECONDS = 1_600_000_000, 3_600
_ROWS, _USERS, _ITEMS = range(3)  # independent random streams under one seed
_RAW = pa.schema({"user": pa.int64(), "item": pa.int64(), "label": pa.int8(), "time": pa.int64()})


@dataclass(frozen=True, kw_only=True)
class Synthetic(Interactions):
    """Users and items belong to trees of categories, and labels follow the affinity of the two.

    The hidden vector of a category is that of its parent plus an offset, so that every level contributes to affinity. A
    row draws its user and its item by popularity, and its label is 1 with probability ``sigmoid(affinity / noise)``;
    affinity, the scaled inner product of the two categories' vectors, has unit variance over the categories.

    Rows are generated in chunks by a counter-based generator, so they do not depend on the chunk size.

    Attributes:
        users: The number of users. Ids that no row draws are absent from the data.
        items: The number of items.
        rows: The number of rows.
        user_tree: Categories of users per level, fine to coarse: (20, 4) is 20 categories nested in 4.
        item_tree: Categories of items per level, in the same form.
        noise: 0 for labels that affinity decides; larger for labels closer to chance.
        user_skew: Exponent s of the users' popularity ~ (position by popularity)^-s (Zipf); 0 is uniform.
        item_skew: Exponent of the items' popularity.
        chunk_rows: Rows generated at a time: it changes memory, not content.

    Raises:
        DataError: The numbers of categories of a tree do not decrease from fine to coarse.
    """

    users: PositiveInt
    items: PositiveInt
    rows: PositiveInt
    user_tree: tuple[PositiveInt, ...] = (20, 4)
    item_tree: tuple[PositiveInt, ...] = (20, 4)
    noise: NonNegativeFloat = 0.25
    user_skew: NonNegativeFloat = 0.5
    item_skew: NonNegativeFloat = 0.8
    chunk_rows: PositiveInt = 500_000

    def __post_init__(self) -> None:
        for key in ("user_tree", "item_tree"):
            tree = getattr(self, key)
            if not tree or any(fine <= coarse for fine, coarse in pairwise(tree)):
                raise DataError(f"data.{key} = {list(tree)}: sizes must decrease from fine to coarse, such as [20, 4]")

    @property
    def columns(self) -> Columns:
        return Columns(user="user", item="item", label="label", time="time")

    def read(self, workspace: Workspace) -> Source:
        reader = pa.RecordBatchReader.from_batches(_RAW, self._reported(workspace))
        workspace.connection.register("chunks", reader)
        workspace.query(f"CREATE TABLE raw AS SELECT *, 'synthetic' AS {FILE} FROM chunks")
        categories = {}
        for column, planted in self.planted(workspace.seed).items():
            table = quoted(f"planted {column}")
            workspace.connection.register("planted", planted)
            workspace.query(f"CREATE TABLE {table} AS FROM planted")  # on disk, not in memory
            categories[column] = f"FROM {table}"
        return Source(f"synthetic, seed {workspace.seed}", text=False, categories=categories)

    def planted(self, seed: int) -> dict[str, pa.Table]:
        """Return the true categories per id column: ``original_id, category_1, …``, fine first, of all ids."""
        users, items = self.populations(seed)
        return {USER: users.table(), ITEM: items.table()}

    def chunks(self, seed: int) -> Iterator[pa.RecordBatch]:
        """Generate batches of up to `chunk_rows` rows: user, item int64, label int8, time int64 (seconds)."""
        users, items = self.populations(seed)
        for start in range(0, self.rows, self.chunk_rows):
            count = min(self.chunk_rows, self.rows - start)
            uniform = np.random.Generator(_bits(seed, _ROWS).advance(start)).random((count, _DRAWS))
            user, item = users.draw(uniform[:, 0]), items.draw(uniform[:, 1])
            affinity = np.einsum("nd,nd->n", users.hidden(user), items.hidden(item)) / np.sqrt(_LATENT)
            jitter = (uniform[:, 3] * _JITTER_SECONDS).astype(np.int64)
            time = _FIRST_SECOND + np.arange(start, start + count) + jitter
            label = uniform[:, 2] < self._probability(affinity)
            yield pa.record_batch([user, item, label.astype(np.int8), time], schema=_RAW)

    def _reported(self, workspace: Workspace) -> Iterator[pa.RecordBatch]:
        made = 0
        for chunk in self.chunks(workspace.seed):
            made += chunk.num_rows
            yield chunk
            workspace.on_progress(f"generated {made:,} of {self.rows:,} rows")

    def _probability(self, affinity: np.ndarray) -> np.ndarray:
        if self.noise == 0:
            return (affinity > 0).astype(np.float64)
        return 0.5 * (1 + np.tanh(0.5 * affinity / self.noise))  # the sigmoid, without overflow

    def populations(self, seed: int) -> tuple["Population", "Population"]:
        """Draw the users and the items with their categories; the same for the same seed."""
        return (
            Population(self.users, tuple(self.user_tree), self.user_skew, np.random.Generator(_bits(seed, _USERS))),
            Population(self.items, tuple(self.item_tree), self.item_skew, np.random.Generator(_bits(seed, _ITEMS))),
        )


class Population:
    """Ids ``0 .. size-1``, each with a category at every level of a tree, and a popularity."""

    def __init__(self, size: int, tree: tuple[int, ...], skew: float, random: np.random.Generator) -> None:
        self.size, self.tree, self.skew = size, tree, skew
        self.by_popularity = random.permutation(size)  # the most popular id is not 0
        self.fine = random.integers(tree[0], size=size, dtype=np.int32)
        offsets = [random.standard_normal((count, _LATENT)) for count in tree]
        ancestors = [self._ancestor(np.arange(tree[0]), level) for level in range(len(tree))]
        self.vectors = sum(o[a] for o, a in zip(offsets, ancestors, strict=True)) / np.sqrt(len(tree))

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Draw ids ``[n]`` by popularity, from uniform numbers ``[n]``.

        The position by popularity is the floor of x with density x^-s on ``[1, size+1)``, by its inverse distribution
        function, so that no table of probabilities is needed.
        """
        end = self.size + 1.0
        if self.skew == 1:
            position = end**uniform
        else:
            power = 1 - self.skew
            position = (1 + uniform * (end**power - 1)) ** (1 / power)
        return self.by_popularity[np.minimum(position.astype(np.int64) - 1, self.size - 1)]

    def hidden(self, ids: np.ndarray) -> np.ndarray:
        """Return the hidden vectors ``[n, 8]`` of the ids' categories."""
        return self.vectors[self.fine[ids]]

    def table(self) -> pa.Table:
        """Return the columns ``original_id, category_1, …``, fine first."""
        levels = {f"category_{level + 1}": self._ancestor(self.fine, level) for level in range(len(self.tree))}
        return pa.table({"original_id": np.arange(self.size), **levels})

    def _ancestor(self, fine: np.ndarray, level: int) -> np.ndarray:
        """Return the category at ``level`` of each fine category: consecutive categories share a parent, evenly."""
        category = fine.astype(np.int64)
        for below, above in zip(self.tree[:level], self.tree[1 : level + 1], strict=True):
            category = category * above // below
        return category


def _bits(seed: int, stream: int) -> np.random.Philox:
    return np.random.Philox(key=[seed, stream])
