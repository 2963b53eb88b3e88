"""Untrained runs of every model, with large random weights, for tests of what is exported."""

from __future__ import annotations

from pathlib import Path

import torch

from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.inference import Inference
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import Schema

SMALL = ("embeddings.dim=8", "trainer.device=cpu", "output=unused")
LAYERS = ("model.num_layers=1", "model.num_heads=2")
UNITS = ("model.hidden_units=[8]",)
OPTIONS = {
    "car": LAYERS,
    "sasrec": LAYERS,
    "bert4rec": LAYERS,
    "fans": LAYERS,
    "gru4rec": ("model.num_layers=1", "model.hidden_dim=8"),
}


def inference(data: Path, *overrides: str, seed: int = 0) -> Inference:
    """The inference of a model whose weights are all random."""
    config, _ = load_run_config(["data=custom", f"data.path={data}", *SMALL, *overrides])
    schema = Schema.load(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task_of(config).build_model(config, schema)
        model.tables.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
    return task_of(config).inference_class()(config, schema, model.eval(), torch.device("cpu"))
