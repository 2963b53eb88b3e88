"""Collaborative filtering in one process, from whole tables: losses, gradients and metrics by plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from cove_dist.config import RunConfig
from cove_dist.embeddings.initialization import fill_normal_
from cove_dist.models.cf.base import AttributeRecommender, GraphRecommender, Recommender
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.quantizers import build_quantizers
from data_pipeline.history import History
from data_pipeline.schema import Schema
from tests.unit.evaluation.ties import expected

Tables = dict[str, torch.Tensor]
Drawn = dict[str, torch.Tensor]


class Reference:
    """What one process would compute. The quantizers and the models have tests of their own; here they are given."""

    def __init__(self, overrides: list[str]) -> None:
        self.config: RunConfig = load_run_config(overrides)[0]
        self.folder = Path(self.config.data.path)
        self.schema = Schema.load(self.folder)
        head_class = self.config.model.kind_of(Recommender)
        sizes = (len(self.schema.attributes),) if issubclass(head_class, AttributeRecommender) else ()
        torch.manual_seed(self.config.seed)
        self.head = self.config.model.build(Recommender, self.config.embeddings.dim, *sizes)
        self.quantizers = build_quantizers(self.config, head_class.rows_per_id)
        rows = {name: self.schema.entity(name[:4]).num_rows for name in ("user_id", "item_id")}
        if issubclass(head_class, AttributeRecommender):
            rows["attributes"] = sum(self.schema.attributes.values()) + 1
        self.tables = {name: torch.empty(count, head_class.rows_per_id * 8) for name, count in rows.items()}
        for name, table in self.tables.items():
            std = self.config.embeddings.init_std
            fill_normal_(table, std=std, seed=self.config.seed, table=name, row_offset=0, column_offset=0)

    def loss(self, drawn: Drawn, tables: Tables) -> torch.Tensor:
        """The loss of a global batch."""
        who, positive, place = drawn["user_id"], drawn["item_id"], self._candidates(drawn)
        negative = drawn["negatives"][place]
        loss = torch.tensor(0.0)
        if isinstance(self.head, GraphRecommender):
            users, items, loss = self._whole(tables)
            at = (users[who], items[positive], items[negative])
            raw = tables["item_id"]
        else:
            ids = [positive, drawn["negatives"]] + (
                [drawn["edge_item"]] if isinstance(self.head, AttributeRecommender) else []
            )
            users, user_loss = self._fuse("user", tables["user_id"][who])
            items, item_loss = self._fuse("item", tables["item_id"][torch.cat(ids)])
            items = items.split([len(part) for part in ids])
            at = (users, items[0], items[1][place])
            loss = user_loss + item_loss
            raw = tables["item_id"]
        of = self.config.negatives.hardest_of
        if of > 1:
            best = self.head(at[0], at[2]).detach().unflatten(1, (-1, of)).argmax(dim=2) + torch.arange(
                0, at[2].shape[1], of
            )
            at = (at[0], at[1], at[2][torch.arange(len(who))[:, None], best])
            negative = negative.gather(1, best)
        scores = torch.stack([self.head(at[0], item.unsqueeze(1))[:, 0] for item in (at[1], *at[2].unbind(1))], dim=1)
        loss = loss + self.head.loss(scores[:, 0], scores[:, 1:]).mean()
        if isinstance(self.head, AttributeRecommender):
            tails = (tables["attributes"][drawn[name]] for name in ("edge_attribute", "edge_negative"))
            loss = loss + self.head.edge_loss(items[2], *tails, torch.zeros_like(who))
        if weight := self.config.interactions.neighbor_pull:
            loss = loss + weight * self._pull(who, positive, tables)
        squares = tables["user_id"][who].square().sum() + raw[positive].square().sum() + raw[negative].square().sum()
        return loss + self.head.regularization / 2 * squares / len(who)

    def _pull(self, who: torch.Tensor, positive: torch.Tensor, tables: Tables) -> torch.Tensor:
        """The neighbor pull of CFKG: user + buy and item towards each other, by the interactions of each."""
        history = History.load(self.folder, "train")
        of_users = torch.from_numpy(np.diff(history.offsets))[who]
        of_items = torch.from_numpy(np.bincount(history.items))[positive]
        users, items, buy = tables["user_id"][who], tables["item_id"][positive], self.head.buy
        to_items = (users + buy - items.detach()).square().sum(dim=1) / of_users
        to_users = (items - buy - users.detach()).square().sum(dim=1) / of_items
        return (to_items + to_users).mean()

    def _candidates(self, drawn: Drawn) -> torch.Tensor:
        """The place of each row's candidates among all; where rows have one for each negative, it stands for all."""
        rows, of = len(drawn["user_id"]), self.config.negatives.hardest_of
        width = self.config.negatives.count * of
        lengths = drawn["lengths"] if self.config.negatives.hardest_share < 1 else torch.full((rows,), width)
        starts = (lengths.cumsum(0) - lengths).tolist()
        slot = torch.arange(width)
        of_rows = [
            start + (slot if length == width else slot // of) for start, length in zip(starts, lengths, strict=True)
        ]
        return torch.stack(of_rows)

    def scores(self, tables: Tables) -> np.ndarray:
        """Of all users seen in training for all items: ``[users, items]``; those never seen are the last row."""
        if isinstance(self.head, GraphRecommender):
            users, items, _ = self._whole(tables)
        else:
            users, items = self._fuse("user", tables["user_id"])[0], self._fuse("item", tables["item_id"])[0]
        return self.head(users, items.expand(len(users), -1, -1)).detach().numpy()

    def metrics(self, tables: Tables, split: str) -> dict[str, float]:
        """Sampled and full, user by user, with the expected values of ties."""
        found = self._sampled(self.scores(tables), split) | self._full(self.scores(tables), split)
        return {name: float(value) for name, value in found.items()}

    def _fuse(self, entity: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if entity not in self.quantizers:
            return rows, torch.tensor(0.0)
        out = self.quantizers[entity](rows)
        return out.fused, self.config.quantizer.omega_q * out.loss

    def _whole(self, tables: Tables) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """LightGCN with a dense adjacency of all users and items; only rows with interactions are in the losses."""
        (users, _), (items, _) = (self._fuse(name[:4], tables[name]) for name in ("user_id", "item_id"))
        trained = {name: tables[name][: self.schema.entity(name[:4]).num_trained] for name in ("user_id", "item_id")}
        user_loss, item_loss = (self._fuse(name[:4], rows)[1] for name, rows in trained.items())
        history = History.load(self.folder, "train")
        edges = torch.zeros(len(users), len(items))
        edges[history.of(np.arange(self.schema.entity("user").num_seen))] = 1
        adjacency = torch.zeros(len(users) + len(items), len(users) + len(items))
        adjacency[: len(users), len(users) :] = edges
        adjacency[len(users) :, : len(users)] = edges.T
        degrees = adjacency.sum(dim=1).clamp(min=1) ** -0.5
        normalized = degrees[:, None] * adjacency * degrees
        layers = [torch.cat([users, items])]
        for _ in range(self.head.layers):
            layers.append(normalized @ layers[-1])
        return *torch.stack(layers).mean(dim=0).split([len(users), len(items)]), user_loss + item_loss

    def _rows(self, split: str) -> list[dict[str, list[int]]]:
        tables = [pq.read_table(self.folder / file) for file in self.schema.splits[split].files]
        return [row for table in tables for row in table.to_pylist()]

    def _sampled(self, scores: np.ndarray, split: str) -> dict[str, float]:
        last_user, last_item = scores.shape[0] - 1, scores.shape[1] - 1
        lists, rows = [], self._rows(split)
        for row in rows:
            values = scores[min(row["user_id"], last_user), np.minimum(row["candidates"], last_item)]
            lists.append((values.tolist(), [place == 0 for place in range(len(values))], 1))
        return self._average(lists, "") | {"users": len({row["user_id"] for row in rows}), "rows": len(rows)}

    def _full(self, scores: np.ndarray, split: str) -> dict[str, float]:
        wanted, last_user = History.load(self.folder, split), scores.shape[0] - 1
        earlier = [History.load(self.folder, name) for name in ("train", "validation")[: 1 + (split == "test")]]
        lists, shown, seen = [], {k: set() for k in self.config.evaluation.hit_rate_at}, scores.shape[1] - 1
        for user in range(len(wanted)):
            positives = set(wanted.of(np.array([user]))[1].tolist())
            if not positives:
                continue
            values = scores[min(user, last_user), :seen].copy()
            had = np.concatenate([history.of(np.array([user]))[1] for history in earlier])
            values[had[had < seen]] = -np.inf
            order = [int(item) for item in np.argsort(-values, kind="stable") if values[item] > -np.inf]
            lists.append((values[order].tolist(), [item in positives for item in order], len(positives)))
            for k, items in shown.items():
                items.update(order[:k])
        coverage = {f"full_coverage@{k}": len(items) / seen for k, items in shown.items()}
        return self._average(lists, "full_") | coverage | {"full_users": len(lists)}

    def _average(self, lists: list[tuple[list[float], list[bool], int]], prefix: str) -> dict[str, float]:
        """Lists: scores of the items that are ranked, which of them are relevant, and how many items are relevant."""
        at, found = self.config.evaluation, {}
        for names, ks in ((("ndcg", "mrr"), at.ndcg_at), (("hr", "recall"), at.hit_rate_at)):
            for k in ks:
                values = [expected(*each, k) for each in lists]
                found |= {f"{prefix}{name}@{k}": np.mean([value[name] for value in values]) for name in names}
        return found
