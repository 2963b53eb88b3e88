"""A training step of every sequential model: the host asks no device for a value.

The meta device, which stands for a GPU here, has none: to ask for a number, or for a shape that depends on one, raises.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torchrec.sparse.jagged_tensor import JaggedTensor

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.sequential.build import build_sequential_model
from data_pipeline.schema import Schema

META = torch.device("meta")
COVE = ("quantizer=cove_items", "quantizer.item_levels=[6,3]", "quantizer.omega_c=0.7")


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("caser", COVE),
        ("gru4rec", ()),
        ("sasrec", ()),
        ("sasrec", ("sequential.softmax=sampled", "sequential.sampled=64", "negatives.category_share=0.2")),
        ("bert4rec", COVE),
        ("car", ("sequential.softmax=full",)),
        ("fans", (*COVE, "sequential.two_stage=true", "sequential.curriculum_steps=50")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "base",
)
def test_a_step_reads_no_value_of_the_device(
    prepared_lists: Path,
    context: DistributedContext,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    overrides: tuple[str, ...],
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    small = ("embeddings.dim=8", "trainer.batch_size=32", "trainer.device=cpu")
    config, _ = load_run_config(
        ["data=aotm", f"data.path={prepared_lists}", "trainer=sequential", f"model={model}", *small, *overrides]
    )
    schema = Schema.load(prepared_lists)
    loader = task_of(config).build_training_loader(config, schema, context)
    batch = next(iter(loader)).to(META)
    objective = build_sequential_model(config, schema).objective
    objective.known_share()  # the number of steps is read once after a start, and counted since
    objective.to(META)
    if objective.negatives is not None:
        codes = np.arange(schema.entity("item").num_seen) % config.negatives.number(config.quantizer)
        objective.negatives.set_codes(codes, META)
    looked_up = {
        name: JaggedTensor(
            torch.randn(len(batch.ids[name].values()), 8, device=META, requires_grad=True),
            lengths=batch.ids[name].lengths(),
        )
        for name in list(batch.ids.keys())
    }
    loss, step = objective(looked_up, batch)
    loss.backward()
    assert loss.is_meta and step.rows == len(batch)
    assert all(parameter.grad is not None for parameter in objective.model.parameters())
