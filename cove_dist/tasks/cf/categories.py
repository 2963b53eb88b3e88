"""Categories for sampling category negatives: codes of the items, recomputed before every epoch.

Shapes: ``I`` items seen in training, ``n`` items of one look-up, ``d`` width of a table row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cove_dist.distributed import DistributedContext, batches_of_block, world
from cove_dist.embeddings.lookup import look_up
from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.kmeans import kmeans
from cove_dist.quantization.replicas import ALONE, generator
from cove_dist.quantization.search import nearest_code
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.cf.model import CFModel
from data_pipeline.schema import Schema
from data_pipeline.streaming.categories import ItemCategories
from data_pipeline.streaming.loader import StreamLoader
from data_pipeline.streaming.transforms import DrawNegatives

_AT_ONCE = 1 << 17  # items per look-up
_CLUSTERED = 1 << 16  # maximum number of items for fitting k-means
_KMEANS, _RANDOM = 1, 2  # second word of a seed


def build_category_renewal(
    config: CFRunConfig, schema: Schema, context: DistributedContext, model: TaskModel, loader: StreamLoader
) -> CategoryRenewal | None:
    """Build the run's category renewal; None if ``negatives.category_share`` is 0."""
    settings = config.negatives
    if settings.category_share == 0:
        return None
    [draw] = [each for each in loader.stream.plan.transforms if isinstance(each, DrawNegatives)]
    source = CategorySource(settings.category_codes, settings.category_count, settings.category_level, config.seed)
    assert isinstance(model, CFModel)
    return CategoryRenewal(source, model, draw, schema.entity("item").num_seen, context.device)


@dataclass(frozen=True)
class CategorySource:
    """Settings of the item codes.

    Attributes:
        codes: "kmeans": k-means over the item table's rows; "quantizer": the codes of the run's item quantizer;
            "random": a fixed random code per item, as a control.
        count: Number of codes of "kmeans" and "random".
        level: Index into the quantizer's levels whose codes are used.
        seed: Seed of k-means and of random codes.
    """

    codes: str
    count: int
    level: int
    seed: int


class CategoryRenewal:
    """Recomputes item codes before every epoch but the first, when tables are random, and passes them to the loader.

    Every rank codes a block of the items, and one byte per item (four from 257 codes on) is gathered. Every rank
    computes the centres of k-means from the same rows, so they do not depend on the number of ranks.

    The codes are part of the checkpoint, so a resumed epoch draws the same negatives.

    Args:
        source: Settings of the codes.
        model: The run's sharded model.
        draw: Transform that samples negatives.
        num_items: Number of items ``I``.
        device: Device of the tables.
    """

    def __init__(
        self, source: CategorySource, model: CFModel, draw: DrawNegatives, num_items: int, device: torch.device
    ) -> None:
        self._source, self._model, self._draw, self._device = source, model, draw, device
        count = source.count if source.codes != "quantizer" else self._quantizer.levels[source.level]
        self._codes = torch.zeros(num_items, dtype=torch.uint8 if count <= 256 else torch.int32, device="cpu")
        self._known = torch.zeros((), dtype=torch.bool, device="cpu")

    @torch.no_grad()
    def start_epoch(self, epoch: int) -> None:
        """Recompute the codes from the current tables. Collective."""
        if epoch == 0:
            return
        if self._source.codes == "random":
            codes = np.random.default_rng([self._source.seed, _RANDOM]).integers(self._source.count, size=self._count)
            self._set(torch.from_numpy(codes).to(self._codes.dtype))
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
        self._draw.categories = ItemCategories(codes.numpy())

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
        column = self._model.column_of("item")
        return look_up(self._model.tables, self._model.columns, {column: items})[column]
