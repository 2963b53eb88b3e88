"""Inference with a trained sequential model: the next items of a given sequence or of a user's newest one.

Shapes: ``B`` sequences, ``n`` rows, ``k`` items of a list, ``d`` embedding dimension.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.serving import Precision, ServingTable
from cove_dist.errors import ConfigError
from cove_dist.evaluation.checks import FiniteScores
from cove_dist.tasks.inference import NO_CONTEXT, ContextFeatures, Inference, Lists, Program, ProgramInput
from cove_dist.tasks.sequential.build import halves_of
from cove_dist.tasks.sequential.catalogue import item_catalogue, owner_table
from cove_dist.tasks.sequential.config import SequentialRunConfig
from cove_dist.tasks.sequential.decoding import Request, next_states
from cove_dist.tasks.sequential.evaluator import build_sequential_ranking
from cove_dist.tasks.sequential.model import SequentialTaskModel
from cove_dist.tasks.sequential.program import NextItemScores, Served
from cove_dist.tasks.sequential.ranking import Catalogue
from cove_dist.tasks.sequential.users import StoredSequences
from data_pipeline.schema import OWNER, Categorical, Entity


class SequentialInference(Inference[SequentialTaskModel]):
    """Inference for sequential models. A user's sequence is the newest in the data: its input, then its target.

    Items of older sequences of a user, in any split, are not recommended either.
    """

    config: SequentialRunConfig

    @cached_property
    def _catalogue(self) -> Catalogue:
        return item_catalogue(self.model, self.schema, self.device)

    @cached_property
    def _owners(self) -> torch.Tensor | None:
        return owner_table(self.model, self.schema, self.device)

    def score(self, users: np.ndarray, items: np.ndarray, context: ContextFeatures = NO_CONTEXT) -> np.ndarray:
        of_users = self._stored(users).of(users)
        return self._score(of_users.newest, of_users.owners, items)

    def recommend(self, users: np.ndarray, k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT) -> Lists:
        [lists] = self.recommend_batches([users], k, repeat=repeat, context=context)
        return lists

    def recommend_batches(
        self, batches: Sequence[np.ndarray], k: int, *, repeat: bool, context: ContextFeatures = NO_CONTEXT
    ) -> Iterator[Lists]:
        stored = self._stored(np.concatenate(batches))
        for of_users in map(stored.of, batches):
            yield self._recommend(of_users.newest, of_users.owners, k, None if repeat else of_users.items)

    def _stored(self, users: np.ndarray) -> StoredSequences:
        owner = self._owner_column if self.model.objective.uses_owner else None
        return StoredSequences(Path(self.config.data.path), self.schema, users, owner)

    @property
    def cannot_fold_in(self) -> str:
        return (
            f"{self.config.model.name} knows users by their sequences, new ones too: recommend(sequences=[…]). An item"
            " without a trained row cannot be listed; start a run from this one with the new data (warm_start)"
        )

    def recommend_after(self, sequences: Sequence[np.ndarray], k: int, *, repeat: bool) -> Lists:
        return self._recommend(sequences, None, k, None if repeat else sequences)

    def score_after(self, sequences: Sequence[np.ndarray], items: np.ndarray) -> np.ndarray:
        return self._score(sequences, None, items)

    def entities(self) -> tuple[Entity, ...]:
        return ("item",)

    def item_keys(self) -> np.ndarray:
        """Return the vectors, with the bias of each item as a last column where there is one: a query has 1 there."""
        if self._catalogue.two_stage is not None:
            return super().item_keys()
        scored, bias = self._catalogue.scored, self._catalogue.bias
        return (scored if bias is None else torch.cat([scored, bias.unsqueeze(1)], dim=1)).detach().cpu().numpy()

    def vectors(self, entity: Entity) -> np.ndarray:
        """Return the item vectors that hidden states are scored against; users have none.

        Raises:
            ConfigError: The entity is the user.
        """
        self._require_item(entity)
        return self._catalogue.scored.cpu().numpy()

    def codes(self, entity: Entity) -> np.ndarray:
        self._require_item(entity)
        return super().codes(entity)

    @torch.no_grad()
    def programs(self, precision: Precision = "float32") -> dict[str, Program]:
        """Return ``model``, which scores all items, and ``query``, whose output searches an index of items.

        Two-stage models have no ``query``: their score is no inner product.
        """
        served, first_stage = self._served(precision), self._catalogue.first_stage
        columns, length = [self.schema.entity("item")], halves_of(self.schema)[0].max_length
        example = torch.arange(3 * length, device="cpu").view(3, length) % columns[0].num_rows
        inputs = {
            "items": ProgramInput(
                example,
                ("rows", length),
                f"{columns[0].name}, the oldest first; slots behind a sequence may hold any row of the table",
            ),
            "lengths": ProgramInput(torch.tensor([1, 1, 2], device="cpu"), ("rows",), "number of items"),
        }
        if served.owners is not None:
            columns.append(self._owner_column)
            owners = torch.arange(3, device="cpu") % columns[1].num_rows
            inputs["owner"] = ProgramInput(owners, ("rows",), columns[1].name)
        scores = NextItemScores(served, copy.deepcopy(first_stage)).cpu().eval()
        meaning = "[rows, num_seen]: scores of all items as the next one; higher is better"
        programs = {"model": Program(scores, inputs, columns, "scores", meaning)}
        if first_stage is None:
            meaning = "[rows, width]: inner products with the vectors of export what=[index] are the scores"
            programs["query"] = Program(scores.query, inputs, columns, "query", meaning)
        return programs

    @torch.no_grad()
    def evaluate(self, split: str, context: DistributedContext, precision: Precision) -> dict[str, float]:
        served, count = self._served(precision), self._catalogue.scored.shape[0]
        fed, scored = served.fed.first(len(self._catalogue.fed)), served.scored.first(count)
        catalogue = replace(self._catalogue, fed=fed, scored=scored, finite=FiniteScores())
        owners = None if served.owners is None else served.owners.first(self._owner_column.num_rows)
        return build_sequential_ranking(self.config, self.schema, split, context)(served.model, catalogue, owners)

    def _served(self, precision: Precision) -> Served:
        """Return the parts of the model; input and output share a table where their vectors are the same."""
        catalogue = self._catalogue
        fed, count = ServingTable(catalogue.fed, precision), len(catalogue.scored)
        shared = torch.equal(catalogue.fed[:count], catalogue.scored)
        scored = fed if shared else ServingTable(catalogue.scored, precision)
        owners = None if self._owners is None else ServingTable(self._owners, precision)
        bias = None if catalogue.bias is None else catalogue.bias.detach().clone()
        return Served(copy.deepcopy(self.model.objective.model), fed, scored, owners, bias, count)

    @property
    def _owner_column(self) -> Categorical:
        [column] = [column for column in self.schema.categorical if column.name == OWNER]
        return column

    def _require_item(self, entity: Entity) -> None:
        if entity != "item":
            raise ConfigError(f"entity = {entity}: sequential models have embeddings of items only; allowed: item")

    @torch.no_grad()
    def _recommend(
        self, sequences: Sequence[np.ndarray], owners: np.ndarray | None, k: int, left_out: Sequence[np.ndarray] | None
    ) -> Lists:
        """List items after sequences, except those to be left out for each."""
        scores, items = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
        for rows in self._batches(len(sequences)):
            seen = None if left_out is None else _padded(left_out[rows]).to(self.device)
            request = self._request(sequences[rows], None if owners is None else owners[rows], seen)
            hidden = next_states(self.model.objective.model, self._catalogue, request)
            best, listed = self._catalogue.best(hidden, k, request.seen)
            scores.append(best.cpu().numpy())
            items.append(listed.cpu().numpy())
        self._catalogue.finite.compute()
        return Lists(np.concatenate(scores), np.concatenate(items))

    @torch.no_grad()
    def _score(self, sequences: Sequence[np.ndarray], owners: np.ndarray | None, items: np.ndarray) -> np.ndarray:
        if self._catalogue.two_stage is not None:
            raise ConfigError("score: a two-stage model ranks items inside the likeliest category only; use recommend")
        found = [np.empty(0, np.float32)]
        for rows in self._batches(len(sequences)):
            request = self._request(sequences[rows], None if owners is None else owners[rows], seen=None)
            hidden = next_states(self.model.objective.model, self._catalogue, request)
            candidates = torch.from_numpy(items[rows]).to(self.device)
            scores = (hidden * self._catalogue.scored[candidates]).sum(dim=1)
            bias = self._catalogue.bias
            found.append((scores if bias is None else scores + bias[candidates]).cpu().numpy())
        return np.concatenate(found)

    def _batches(self, count: int) -> list[slice]:
        size = self.config.trainer.evaluation_batch_size
        return [slice(start, start + size) for start in range(0, count, size)]

    def _request(
        self, sequences: Sequence[np.ndarray], owners: np.ndarray | None, seen: torch.Tensor | None
    ) -> Request:
        """Pad the last items of sequences, up to the length the model was trained on."""
        if not all(map(len, sequences)):
            raise ConfigError("sequences: one of them is empty; a model continues sequences of one item or more")
        longest = halves_of(self.schema)[0].max_length
        cut = [np.asarray(each[-longest:], np.int64) for each in sequences]
        lengths = np.array([len(each) for each in cut])
        items = np.zeros((len(cut), int(lengths.max(initial=1))), np.int64)
        present = np.arange(items.shape[1]) < lengths[:, None]
        items[present] = np.concatenate(cut)
        device = self.device
        of_lengths = torch.from_numpy(lengths).to(device)
        owner = None
        if owners is not None and self._owners is not None:
            owner = self._owners[torch.from_numpy(owners).to(device)]
        return Request(torch.from_numpy(items).to(device), of_lengths, torch.ones_like(of_lengths), owner, seen)


def _padded(sequences: Sequence[np.ndarray]) -> torch.Tensor:
    """Return int64 ``[B, longest]``, padded with -1."""
    lengths = np.array([len(each) for each in sequences])
    padded = np.full((len(sequences), int(lengths.max(initial=0))), -1, np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sequences)
    return torch.from_numpy(padded)
