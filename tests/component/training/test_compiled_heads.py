"""``trainer.compile``: the head is compiled in place, and computes what it computed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from cove_dist.distributed import process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import small_run


def losses(prepared: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], set[str], int]:
    """Losses of three steps, the last one of another size; names in the state; how many graphs were compiled."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=backend))
    config, _ = load_run_config(small_run(prepared))
    config = replace(config, trainer=replace(config.trainer, compile=compiled))
    with process_group("cpu") as context:
        trainer = Trainer(config, Schema.load(prepared), context)
        found = [output.losses["loss"].item() for output in islice(trainer.steps(iter(trainer.train_loader)), 3)]
        names = set(trainer.train_state.model.module.objective.state_dict())
    monkeypatch.undo()
    return found, names, len(graphs)


def test_a_compiled_head_gives_the_same_losses_under_the_same_names(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, names, none = losses(prepared, False, monkeypatch)
    compiled, same_names, graphs = losses(prepared, True, monkeypatch)
    assert compiled == pytest.approx(plain, rel=1e-6)
    assert names == same_names
    assert (none, graphs > 0) == (0, True)
