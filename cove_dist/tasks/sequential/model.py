"""A batch of sequences -> tables -> item quantizer -> sequence model -> softmax over items.

Shapes: ``B`` sequences, ``n`` items of all sequences (input halves, then target halves), ``P`` predicted positions of
all sequences, ``V`` rows of this rank's vocabulary, ``d`` embedding dimension, ``H`` levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torchrec.sparse.jagged_tensor import JaggedTensor

from cove_dist.distributed import Collectives, world
from cove_dist.losses import Vocabulary, sampled_cross_entropy, vocabulary_cross_entropy
from cove_dist.losses.rows import rank_weights
from cove_dist.models.layers.two_stage import TwoStageClassifier
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.quantization import CascadedQuantizer, CodeClassifier
from cove_dist.tasks.base import EntityLookup, Objective, Step, TaskModel
from cove_dist.tasks.quantizers import EntityQuantizers
from cove_dist.tasks.sequential.categories import ItemCategories
from cove_dist.tasks.sequential.category_negatives import CategoryNegatives
from cove_dist.tasks.sequential.padding import sent
from cove_dist.tasks.sequential.positions import (
    Embedded,
    Predicted,
    predict_masked,
    predict_next,
    predict_targets,
)
from data_pipeline.batch import Batch
from data_pipeline.schema import INPUT, OWNER, TARGET, Categorical, Entity, Schema
from data_pipeline.streaming.vocabulary import VOCABULARY, batch_keys, vocabulary_block


class ObjectiveSettings(NamedTuple):
    """Settings of the objective; see `cove_dist.config.SequentialConfig` and ``QuantizerConfig``."""

    softmax: str
    fuse_output: bool
    mask_share: float
    mask_last: float
    curriculum_steps: int
    omega_q: float
    omega_c: float
    item_bias: bool
    precision: torch.dtype


class Items(NamedTuple):
    """The item embeddings of a batch.

    Attributes:
        ids: Item ids int64 ``[n + V]``.
        fed: Input vectors of the model ``[n, d]``, fused if there is a quantizer.
        scored: Vectors that hidden states are scored against ``[n + V, d]``.
        codes: Codes int64 ``[n, H]`` (or more rows), or None without a quantizer.
        categories: Categories int64 ``[n + V]``, or None if items have none.
    """

    ids: torch.Tensor
    fed: torch.Tensor
    scored: torch.Tensor
    codes: torch.Tensor | None
    categories: torch.Tensor | None

    def codes_of(self, which: torch.Tensor) -> torch.Tensor:
        """Return the codes ``[P, H]`` of items at ``which [P]``; ValueError without a quantizer."""
        if self.codes is None:
            raise ValueError("classifying codes needs a quantizer of items")
        return self.codes[which]

    def categories_of(self, which: torch.Tensor | slice) -> torch.Tensor:
        """Return the categories of items at ``which``; ValueError if items have none."""
        if self.categories is None:
            raise ValueError("the two-stage classifier needs categories: ready-made ones, or those of a quantizer")
        return self.categories[which]


class SequentialObjective(Objective):
    """The loss of a softmax over items, and the losses of the quantizer and the classifiers.

    Losses are means over the positions, or vectors, of all ranks, also if ranks have different numbers of them.

    Args:
        model: Sequential model; `positions` calls it.
        quantizer: Quantizer of items, or None.
        classifier: Classifier of codes from hidden states, or None.
        settings: Settings of the objective.
        item: Column of items. Those seen in training may be predicted; each has a score bias if ``settings.item_bias``.
        uses_owner: Whether the model reads the owners of sequences.
        log_expected: Log of the expected count of each item in a sample, float ``[num_seen]``, for a sampled softmax.
        categories: Ready-made categories whose vectors are added to the model's input, or None.
        two_stage: Classifier of an item's category (ready-made, or its coarsest code) and then the item; or None.
        negatives: Category negatives of a sampled softmax, or None.
    """

    log_expected: torch.Tensor | None
    steps: torch.Tensor

    def __init__(
        self,
        model: SequentialModel,
        quantizer: CascadedQuantizer | None,
        classifier: CodeClassifier | None,
        settings: ObjectiveSettings,
        item: Categorical,
        uses_owner: bool = False,
        log_expected: torch.Tensor | None = None,
        categories: ItemCategories | None = None,
        two_stage: TwoStageClassifier | None = None,
        negatives: CategoryNegatives | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.quantizers = EntityQuantizers({} if quantizer is None else {"item": quantizer})
        self.classifier = classifier
        self.settings = settings
        self.categories = categories
        self.two_stage = two_stage
        self.negatives = negatives
        self.uses_owner = uses_owner
        self.item = item
        self.item_bias = nn.Parameter(torch.zeros(item.num_seen)) if settings.item_bias else None
        self.register_buffer("log_expected", log_expected, persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # training steps so far, for the curriculum
        self._steps: int | None = None  # the same number on the host; None: to be read

    def forward(self, looked_up: Mapping[str, JaggedTensor], batch: Batch) -> tuple[torch.Tensor, Step]:
        """Return the loss to differentiate, weighted for uneven ranks, and the outputs of the step. Collective."""
        items, quantization = self.embed(looked_up, batch)
        inputs, targets = (batch.lengths_of(half) for half in (INPUT, TARGET))
        owner = looked_up[OWNER].values() if self.uses_owner else None
        predicted = self.predict(Embedded(items.fed, inputs, targets, owner))
        # A rank's mean times its share, averaged over ranks, is the mean over all ranks.
        counts = sent(torch.tensor([len(predicted.which), len(items.fed)], device="cpu"), items.ids.device)
        positions, vectors = rank_weights(counts)
        parts = {"task": self.softmax_loss(predicted, items, positions, inputs, targets)}
        weights = {"quantization_item": self.settings.omega_q, "classification": self.settings.omega_c}
        if self.two_stage is not None:
            logits = self.two_stage.head(predicted.hidden)
            parts["category"] = positions * mean_cross_entropy(logits, items.categories_of(predicted.which))
        if quantization is not None:
            parts["quantization_item"] = vectors * quantization
        if self.classifier is not None:
            parts["classification"] = positions * self.classifier(predicted.hidden, items.codes_of(predicted.which))
        loss = reduce(add, (weights.get(name, 1.0) * part for name, part in parts.items()))
        reported = {name: part.detach() / batch.weight for name, part in {"loss": loss, **parts}.items()}
        return loss, Step(len(batch), reported)

    def embed(self, looked_up: Mapping[str, JaggedTensor], batch: Batch) -> tuple[Items, torch.Tensor | None]:
        """Return the items, with equal ids quantized once, and the quantization loss, which excludes the vocabulary."""
        names = (INPUT, TARGET, VOCABULARY)
        raw = torch.cat([looked_up[name].values() for name in names])
        inputs, targets, vocabulary = (batch.ids[name].values() for name in names)
        count, ids = len(inputs) + len(targets), torch.cat([inputs, targets, vocabulary])
        given = None if self.categories is None else self.categories.numbers[ids]
        if not self.quantizers:
            return Items(ids, self.with_categories(raw[:count], ids), raw, None, given), None
        by_code = self.two_stage is not None and given is None
        quantized = len(ids) if self.settings.fuse_output or by_code else count
        fuse_only = torch.arange(quantized, device=ids.device) >= count
        output = self.quantizers["item"](raw[:quantized], ids=ids[:quantized], fuse_only=fuse_only)
        scored = output.fused if self.settings.fuse_output else raw
        fed = self.with_categories(output.fused[:count], ids)
        return Items(ids, fed, scored, output.codes, output.codes[:, -1] if by_code else given), output.loss

    def with_categories(self, items: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Add the vectors of ready-made categories to ``items [n, d]``, which are the first of ``ids``."""
        return items if self.categories is None else items + self.categories(ids[: len(items)])

    def predict(self, sequences: Embedded) -> Predicted:
        """Return hidden states, float32, and the items to predict from them."""
        settings, device = self.settings, sequences.items.device
        with torch.autocast(device.type, dtype=settings.precision, enabled=settings.precision != torch.float32):
            if self.model.decoding == "parallel":
                predicted = predict_targets(self.model, sequences, self.known_share())
            elif self.model.reads_masked_items:
                predicted = predict_masked(self.model, sequences, settings.mask_share, settings.mask_last)
            else:
                predicted = predict_next(self.model, sequences)
        return Predicted(predicted.hidden.float(), predicted.which)

    def known_share(self) -> float:
        """Return the share of each target half shown to a parallel decoder in this training step (curriculum)."""
        if not self.settings.curriculum_steps:
            return 0.0
        self._steps = 1 + (int(self.steps) if self._steps is None else self._steps)
        self.steps += 1
        return max(0.0, 1 - self._steps / self.settings.curriculum_steps)

    def reset_steps(self) -> None:
        """Begin the curriculum again."""
        self.steps.zero_()
        self._steps = 0

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._steps = None

    def softmax_loss(
        self, predicted: Predicted, items: Items, share: torch.Tensor, *halves: torch.Tensor
    ) -> torch.Tensor:
        """Return ``share`` times the mean cross-entropy of the true items over this rank's positions.

        ``halves`` are the lengths of the input and of the target halves, int64 ``[B]``, on the host.
        """
        hidden, targets = with_one(predicted.hidden, self.item_bias), items.ids[predicted.which]
        weights = (share / max(1, len(targets))).float().expand(len(targets))  # per position, the same on all ranks
        ids = items.ids[len(items.fed) :]
        rows = with_bias(items.scored[len(items.fed) :], self.item_bias, ids)
        if self.log_expected is not None:
            true = with_bias(items.scored[predicted.which], self.item_bias, targets)
            log_expected, excluded = self.log_expected[ids], None
            if self.negatives is not None and self.negatives.known:
                count = len(halves[0])
                numbers = torch.arange(count, device=halves[0].device)
                owners = sent(torch.cat([numbers.repeat_interleave(lengths) for lengths in halves]), ids.device)
                own, sequences = items.ids[: len(owners)], owners[predicted.which]
                excluded = self.negatives.excluded(ids, targets, own, owners, sequences, count)
                log_expected = log_expected + self.negatives.log_scale
            return sampled_cross_entropy(hidden, true, targets, weights, rows, ids, log_expected, excluded)
        ranks = world() if self.settings.softmax == "vocabulary_parallel" else Collectives()
        first, _ = vocabulary_block(self.item, ranks.rank, ranks.size)
        groups = of_rows = None
        if self.two_stage is not None:
            groups, of_rows = items.categories_of(predicted.which), items.categories_of(slice(len(items.fed), None))
        vocabulary, precision = Vocabulary(rows, first, of_rows), self.settings.precision
        return vocabulary_cross_entropy(hidden, targets, weights, vocabulary, ranks, groups=groups, precision=precision)


class SequentialTaskModel(TaskModel):
    """A sequential recommendation model."""

    objective: SequentialObjective

    def entity_lookup(self, entity: Entity, schema: Schema) -> EntityLookup:
        """Return how to look up items, the only quantized entity of this task."""
        keys = batch_keys(schema)
        return EntityLookup(keys, keys.index(VOCABULARY), lambda looked_up, _: looked_up[VOCABULARY].values())

    def row_parameters(self, schema: Schema) -> dict[str, str]:
        return {} if self.objective.item_bias is None else {"objective.item_bias": schema.entity("item").table_name}


def with_bias(rows: torch.Tensor, bias: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
    """Append the bias of items ``ids [n]`` to ``rows [n, d]`` as column d, if there is a bias. See `with_one`."""
    return rows if bias is None else torch.cat([rows, bias.index_select(0, ids).unsqueeze(1)], dim=1)


def with_one(hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Append 1 to ``hidden [P, d]`` as column d, if there is a bias, so that inner products add the bias column."""
    return hidden if bias is None else F.pad(hidden, (0, 1), value=1.0)


def mean_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy, a scalar; 0 without positions, so that every rank has a gradient."""
    return F.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))
