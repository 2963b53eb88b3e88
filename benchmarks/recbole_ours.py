"""One of our configurations, trained and evaluated; started by ``recbole_cf.py`` and ``recbole_sequential.py``.

One process, by `Trainer`: its loader, pipeline, optimizers and evaluator. The test split is evaluated whenever
validation was better than before, so that the last such evaluation is that of the best weights.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import islice
from pathlib import Path

import epochs
import torch

from cove_dist.config import RunConfig
from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.training.trainer import Trainer
from data_pipeline.json_files import write_json
from data_pipeline.schema import Schema

NAMES = {"full_ndcg@10": "ndcg@10", "full_recall@10": "recall@10", "full_hr@10": "hr@10"}  # of collaborative filtering
NAMES |= {"ndcg@10": "ndcg@10", "hr@10": "hr@10"}  # of lists


class Ours:
    """See `epochs.Contestant`."""

    def __init__(self, config: RunConfig, schema: Schema, context: DistributedContext) -> None:
        self.trainer = Trainer(config, schema, context)
        self.trainer.train_state.model.train()
        self.name = f"ours, {config.model.name}"
        self.steps_per_epoch = len(self.trainer.train_loader)
        self._evaluate_test = task_of(config).build_evaluator(config, schema, "test", context, {})
        self._tested: epochs.Metrics = {}

    def train_epoch(self, epoch: int, max_steps: int | None) -> int:
        trainer = self.trainer
        trainer.train_loader.set_epoch(epoch)
        batches = iter(trainer.train_loader)
        steps = 0
        for output in trainer.steps(batches if max_steps is None else islice(batches, max_steps)):
            trainer.interval_metrics.add(output, trainer.codebooks.after_step(trainer.progress.step))
            steps += 1
        return steps

    def validate(self) -> epochs.Metrics:
        return renamed(self.trainer.evaluate())

    def note_best(self) -> None:
        self._tested = renamed(self._evaluate_test(self.trainer.train_state.model))

    def test(self) -> epochs.Metrics:
        return self._tested


def renamed(metrics: dict[str, float]) -> epochs.Metrics:
    """Under the names that both programs use; a list with one item left out is hit as often as that is recalled."""
    found = {common: metrics[name] for name, common in NAMES.items() if name in metrics}
    return {"recall@10": found["hr@10"]} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request", type=Path, required=True, help="a JSON file: overrides, plan")
    parser.add_argument("--json", type=Path, required=True, help="the record of the run")
    arguments = parser.parse_args()
    quiet_libraries()
    logging.getLogger("cove_dist.evaluation").setLevel(logging.ERROR)  # the paper's metrics need more than one target
    request = json.loads(arguments.request.read_text())
    config, _ = load_run_config(request["overrides"])
    with process_group("cpu") as context:
        contestant = Ours(config, Schema.load(config.data.path), context)
        record = epochs.run(contestant, epochs.Plan(**request["plan"]))
    record |= {"overrides": request["overrides"], "threads": torch.get_num_threads()}
    write_json(arguments.json, record)


if __name__ == "__main__":
    main()
