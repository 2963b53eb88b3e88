"""The hand-written loops of `bare.py`: tables are plain tensors, optimizers are torch's, batches lie in memory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F

from cove_dist.models.layers.neighbors import NeighborSum
from cove_dist.tasks.cf.graph import GraphObjective
from data_pipeline.batch import Batch
from data_pipeline.schema import INPUT, TARGET
from data_pipeline.streaming.transforms import NEGATIVES
from data_pipeline.streaming.vocabulary import VOCABULARY

Tables = dict[str, torch.Tensor]


class BareLoop(ABC):
    """Trains a copy of a model, from the same start.

    Args:
        model: The product's model, not sharded parts of it: its head and the tables' values are copied.
        lr: Learning rate of everything.
    """

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        self.lr = lr
        state = model.tables.state_dict()
        self.tables: Tables = {key.split(".")[1]: weight.detach().clone() for key, weight in state.items()}
        self.head = copy.deepcopy(self.head_of(model.objective))

    def head_of(self, objective: Any) -> torch.nn.Module:
        return objective.head

    @abstractmethod
    def prepare(self, batch: Batch) -> Any:
        """Bring a batch into the form in which such a program would hold it in memory; not timed."""

    @abstractmethod
    def step(self, batch: Any) -> torch.Tensor:
        """Train on a prepared batch and return its loss."""

    def adam(self, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, fused=True)


class SparseTable:
    """A table under Adam with ``beta1 = 0`` that updates the rows of a step alone."""

    def __init__(self, weight: torch.Tensor, lr: float, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.weight, self.lr, self.beta2, self.eps = weight, lr, beta2, eps
        self.second, self.updated = torch.zeros_like(weight), torch.zeros(len(weight))
        self.steps = 0

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight).requires_grad_()

    @torch.no_grad()
    def update(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        self.steps += 1
        rows, place = torch.unique(ids, return_inverse=True)
        total = gradient.new_zeros(len(rows), gradient.shape[1]).index_add_(0, place, gradient)
        faded = self.beta2 ** (self.steps - self.updated[rows])
        second = self.second[rows] * faded[:, None] + (1 - self.beta2) * total**2
        self.second[rows], self.updated[rows] = second, float(self.steps)
        scale = (second / (1 - self.beta2**self.steps)).sqrt() + self.eps
        self.weight.index_add_(0, rows, -self.lr * total / scale)


class Pairs(BareLoop):
    """BPRMF and NeuMF: a positive and its negatives by row."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__(model, lr)
        self.user, self.item = model.objective.user, model.objective.item
        self.users, self.items = (SparseTable(self.tables[name], lr) for name in (self.user, self.item))
        parameters = list(self.head.parameters())
        self.optimizer = self.adam(parameters) if parameters else None

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        users, positives, negatives = (batch.ids[name].values() for name in (self.user, self.item, NEGATIVES))
        return users, torch.cat([positives[:, None], negatives.view(len(positives), -1)], dim=1)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        user_ids, item_ids = batch
        users, items = self.users.rows(user_ids), self.items.rows(item_ids)
        scores = self.scores(users, items)
        loss = self.head.loss(scores[:, 0], scores[:, 1:]).mean()
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()
        self.users.update(user_ids, users.grad)
        self.items.update(item_ids.flatten(), items.grad.flatten(0, 1))
        return loss.detach()

    def scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self.head(users, items)


class Factors(Pairs):
    """BPRMF without any of the product's code."""

    def scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (users[:, None] * items).sum(dim=2)


def matrix(neighbors: NeighborSum, rows: int, columns: int) -> torch.Tensor:
    """Return the edges of a neighbor sum as a sparse matrix of torch."""
    return torch.sparse_csr_tensor(neighbors._offsets, neighbors._columns, neighbors._weights, (rows, columns))


class Graph(Pairs):
    """LightGCN by products with a sparse matrix, all embeddings under Adam."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__(model, lr)
        objective: GraphObjective = model.objective
        self.layers = objective.head.layers
        self.weights = [self.tables[name].requires_grad_() for name in (self.user, self.item)]
        self.optimizer = self.adam(self.weights)
        sums = zip(objective.graph, self.weights, reversed(self.weights), strict=True)
        self.to_users, self.to_items = (matrix(part, len(to), len(source)) for part, to, source in sums)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        user_ids, item_ids = batch
        users, items = self.weights
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = self.to_users @ items, self.to_items @ users
            user_sum, item_sum = user_sum + users, item_sum + items
        scores = (user_sum[user_ids][:, None] * item_sum[item_ids]).sum(dim=2) / (self.layers + 1) ** 2
        loss = F.softplus(scores[:, 1:] - scores[:, :1]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Fields(BareLoop):
    """A CTR head on the embeddings of all fields, under Adam."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__(model, lr)
        keys = model.tables.state_dict()
        self.names = [key.split(".")[1] for key in keys]
        self.first = [name for name in self.names if name.endswith("_first_order")]
        self.fields = [name for name in self.names if name not in self.first]
        for weight in self.tables.values():
            weight.requires_grad_()
        self.optimizer = self.adam([*self.tables.values(), *self.head.parameters()])

    def prepare(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        return [batch.ids[name].values() for name in self.fields], batch.dense, batch.labels

    def rows(self, names: list[str], ids: list[torch.Tensor]) -> list[torch.Tensor]:
        return [F.embedding(column, self.tables[name]) for name, column in zip(names, ids, strict=True)]

    def step(self, batch: tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ids, dense, labels = batch
        inputs = [torch.stack(self.rows(self.fields, ids), dim=1), dense]
        if self.first:
            inputs.append(torch.stack(self.rows(self.first, ids), dim=1).mean(dim=2))
        logits = self.head(*inputs)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class NextItems(BareLoop):
    """A causal sequence model with a softmax over all items, under Adam."""

    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__(model, lr)
        [self.items] = [weight.requires_grad_() for weight in self.tables.values()]
        self.optimizer = self.adam([self.items, *self.head.parameters()])

    def head_of(self, objective: Any) -> torch.nn.Module:
        return objective.model

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, slice]:
        halves = [batch.ids[name] for name in (INPUT, TARGET)]
        rows = [
            torch.cat(parts)
            for parts in zip(*(half.values().split(half.lengths().tolist()) for half in halves), strict=True)
        ][: len(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        vocabulary = batch.ids[VOCABULARY].values()
        return padded, mask, slice(int(vocabulary[0]), int(vocabulary[-1]) + 1)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor, slice]) -> torch.Tensor:
        ids, mask, vocabulary = batch
        hidden = self.head(F.embedding(ids, self.items)[:, :-1], mask[:, :-1])[mask[:, 1:]]
        scores = hidden @ self.items[vocabulary].T
        loss = F.cross_entropy(scores, ids[:, 1:][mask[:, 1:]] - vocabulary.start)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()
