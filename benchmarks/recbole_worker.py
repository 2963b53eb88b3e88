"""One model of RecBole 1.2.1, trained and evaluated; started by ``recbole_cf.py`` and ``recbole_sequential.py``.

Runs under the python of RecBole's own environment (``requirements-recbole.txt``) and imports nothing of this project
but its stopwatch. RecBole's are the data set, the loaders, the model, the training epoch and the evaluation. RecBole's
program ``quick_start`` is not used: it needs ray. Nor are its checkpoints: the best weights are kept in memory.

The request is a JSON file: ``config`` for RecBole, and ``plan`` (`epochs.Plan`). Written are the record of the run, and
RecBole's own ten best items of every user of the test split, with its mask in force: ``users [n]``, ``items [n, 10]``,
as in the data files.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import epochs
import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

NAMES = {"ndcg@10": "ndcg@10", "recall@10": "recall@10", "hit@10": "hr@10"}  # RecBole's, ours
K = 10


class RecBole:
    """See `epochs.Contestant`.

    Args:
        settings: RecBole's configuration, with its ``model`` and ``dataset``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        config = Config(model=settings["model"], dataset=settings["dataset"], config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        self.loader, self.validation, self.test_split = data_preparation(config, dataset)
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        self.model = get_model(config["model"])(config, self.loader._dataset).to(config["device"])
        self.trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, self.model)
        self.users, self.items = (dataset.field2id_token[name] for name in ("user_id", "item_id"))
        self.name = f"RecBole {settings['model']}"
        self.steps_per_epoch = len(self.loader)
        self.lists: dict[str, np.ndarray] = {}

    def train_epoch(self, epoch: int, max_steps: int | None) -> int:
        steps = self.steps_per_epoch if max_steps is None else min(max_steps, self.steps_per_epoch)
        batches = self.loader if steps == self.steps_per_epoch else islice(self.loader, steps)
        self.trainer._train_epoch(batches, epoch)
        return steps

    def validate(self) -> epochs.Metrics:
        return self._evaluate(self.validation)

    def note_best(self) -> None:
        self.best = copy.deepcopy(self.model.state_dict())

    def test(self) -> epochs.Metrics:
        self.model.load_state_dict(self.best)
        evaluate_batch, users, items = self.trainer._full_sort_batch_eval, [], []

        def recorded(batch: tuple) -> tuple:
            interaction, scores, *rest = evaluate_batch(batch)
            users.append(interaction["user_id"].numpy())
            items.append(scores.topk(K, dim=1).indices.numpy())
            return interaction, scores, *rest

        self.trainer._full_sort_batch_eval = recorded
        metrics = self._evaluate(self.test_split)
        self.trainer._full_sort_batch_eval = evaluate_batch
        tokens = self.users[np.concatenate(users)], self.items[np.concatenate(items)]
        self.lists = dict(zip(("users", "items"), (each.astype(np.int64) for each in tokens), strict=True))
        return metrics

    def _evaluate(self, split: Any) -> epochs.Metrics:
        for kept in getattr(self.model, "other_parameter_name", ()):  # propagated embeddings, of the latest weights
            setattr(self.model, kept, None)
        found = self.trainer.evaluate(split, load_best_model=False)
        return {ours: float(found[theirs]) for theirs, ours in NAMES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True, help="the record of the run")
    parser.add_argument("--lists", type=Path, required=True, help="the lists, as .npz")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    request = json.loads(arguments.request.read_text())
    contestant = RecBole(request["config"])
    record = epochs.run(contestant, epochs.Plan(**request["plan"]))
    record["versions"] = {name: version(name) for name in ("recbole", "torch", "numpy")}
    record["threads"] = torch.get_num_threads()
    arguments.json.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    np.savez(arguments.lists, **contestant.lists)


if __name__ == "__main__":
    main()
