"""Every CTR head under autocast to bfloat16, as `trainer.precision` runs it."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from cove_dist.config.model_spec import model_class
from cove_dist.config_folders import config_folder
from cove_dist.models.ctr.base import CTRHead
from cove_dist.tasks.configuration import load_run_config

from .reference import random_inputs

FILES = sorted((config_folder() / "model").glob("*.yaml"))
HEADS = [path.stem for path in FILES if model_class(OmegaConf.to_container(OmegaConf.load(path))).task == "ctr"]
WIDTHS = {"hidden_units": (20, 20), "dropout": 0.0}


@pytest.mark.parametrize("head", HEADS)
def test_logits_and_gradients_are_those_of_float32_up_to_rounding(head: str) -> None:
    config, _ = load_run_config([f"model={head}"])
    head_class = config.model.kind_of(CTRHead)
    torch.manual_seed(0)
    model = head_class(3 + head_class.attends_to_histories, 8, 2, **(config.model.arguments | WIDTHS))
    fields, dense = random_inputs(50, 3, 8, 2, torch.float32)
    inputs = [fields, dense, *([torch.randn(50, 3)] if head_class.uses_first_order else [])]
    if head_class.attends_to_histories:
        inputs += [fields[:, 1], torch.randn(50, 1, 5, 8), torch.rand(50, 1, 5) < 0.5]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = model(*inputs).float()
        (gradient,) = torch.autograd.grad(logits.sum(), fields)
        results.append((logits.detach(), gradient))
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() < 0.2 * exact.norm()  # a ReLU that flips changes a row's gradient
