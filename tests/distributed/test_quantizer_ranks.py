"""Codebooks on 1, 2 and 4 real ranks: the same as on one, the same on each, the same after a run is killed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cove_dist.distributed import process_group
from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings, Replicas
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from cove_dist.training.codebooks import Codebooks
from cove_dist.training.optimization import data_parallel_state
from cove_dist.training.program import train
from cove_dist.training.replicas import fingerprint
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.configurations import COVE, small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.test_training import NO_DROPOUT, part_of, train_until

LEARNING = ("gradient", "ema")
START_AND_REVIVAL = (*COVE, "quantizer.item_levels=[70,4]", "quantizer.start=kmeans")  # of 80 items: some always dead


class Trained:
    """What a rank has after some steps: plain numbers, to be sent."""

    def __init__(self, overrides: list[str], steps: int) -> None:
        """Train on the same global batches, whatever the number of ranks, again and again."""
        config, _ = load_run_config(overrides)
        schema = Schema.load(config.data.path)
        with process_group("cpu") as context:
            train_state = build(config, schema, context, 64)
            pipeline = TrainPipelineSparseDist(train_state.model, train_state.optimizer, context.device)
            quantizers = dict(train_state.model.module.objective.quantizers.items())
            codebooks = Codebooks(quantizers, config.quantizer, config.seed, context, train_state.optimizer)
            whole = list(build_loader(config.data.path, schema, "train", 251))[:8]  # 251: ranks get unequal parts
            parts = [part_of(batch, context.rank, context.world_size) for batch in whole]
            batches = itertools.islice(itertools.cycle(parts), steps)
            losses, self.revived = [], 0.0
            for step in range(1, steps + 1):
                predictions = pipeline.progress(batches)
                share = len(predictions.logits) / 251
                losses.append(predictions.losses["loss"].item() * share)
                self.revived += sum(codebooks.after_step(step).values())
            total = torch.tensor(losses, dtype=torch.float64)
            dist.all_reduce(total)
            self.losses = total.tolist()
            state = data_parallel_state(train_state.model)
            self.codebooks = {name: x.flatten().tolist() for name, x in state.items() if "quantizers" in name}
            self.fingerprints = {name: int(fingerprint(x)) for name, x in state.items()}


@pytest.mark.parametrize("learning", LEARNING)
def test_one_two_and_four_ranks_have_the_same_losses_and_codebooks(prepared: Path, learning: str) -> None:
    rates = ("trainer.optimizer.learning_rate=0.02", "embeddings.optimizer.learning_rate=0.05")
    averages = (f"quantizer.learning={learning}", *(["quantizer.ema_decay=0.8"] if learning == "ema" else []))
    overrides = small_run(prepared, "unused", NO_DROPOUT, "embeddings.init_std=0.3", *rates, *COVE, *averages)
    one = run_ranks(1, Trained, overrides, 8)[0]
    start = run_ranks(1, Trained, overrides, 0)[0]
    assert sum("moving_averages" in name for name in one.codebooks) == (2 if learning == "ema" else 0)
    assert all(one.codebooks[name] != pytest.approx(start.codebooks[name], rel=0.05) for name in one.codebooks)
    for world_size in (2, 4):
        for rank in run_ranks(world_size, Trained, overrides, 8):
            assert rank.losses == pytest.approx(one.losses, rel=2e-5)
            for name, values in one.codebooks.items():
                assert rank.codebooks[name] == pytest.approx(values, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("learning", LEARNING)
def test_replicas_are_the_same_to_the_bit_after_200_steps_with_start_and_revival(
    prepared: Path, learning: str, world_size: int
) -> None:
    settings = ("quantizer.kmeans_step=30", "quantizer.kmeans_batches=4", "quantizer.revive_every=10")
    overrides = small_run(prepared, "unused", *START_AND_REVIVAL, *settings, f"quantizer.learning={learning}")
    first, *others = run_ranks(world_size, Trained, overrides, 200)
    assert first.revived > 10
    assert any("codebooks" in name for name in first.fingerprints)
    for other in others:
        assert other.revived == first.revived
        assert other.fingerprints == first.fingerprints


@pytest.mark.parametrize(
    "learning",
    [("quantizer.learning=ema",), ("quantizer.learning=gradient", "trainer.gradient_clip_norm=0.5")],
    ids=["ema", "gradient-clipped"],
)
def test_a_killed_run_goes_on_exactly_with_start_and_revival(
    prepared: Path, tmp_path: Path, learning: tuple[str, ...]
) -> None:
    """The checkpoint of step 12 holds vectors for the start at step 13, and counts since the revival of step 10."""
    settings = ("quantizer.kmeans_step=13", "quantizer.kmeans_batches=3", "quantizer.revive_every=5")
    saving = ("trainer.checkpoint.every_steps=4", *START_AND_REVIVAL, *settings, *learning)
    run_ranks(2, train, small_run(prepared, tmp_path / "whole", *saving))
    killed = small_run(prepared, tmp_path / "killed", *saving)
    with pytest.raises(AssertionError, match="died"):
        run_ranks(2, train_until, killed, 14)
    run_ranks(2, train, [*killed, "trainer.checkpoint.resume=auto"])
    whole, resumed = (figures(tmp_path / name) for name in ("whole", "killed"))
    assert sum(record.get("revived_item_1", 0) for record in whole) > 0
    assert resumed == whole


def figures(folder: Path) -> list[dict[str, float]]:
    """All records without what a clock or the machine decides."""
    measured = ("samples_per_second", "resident_mb")
    return [{k: v for k, v in r.items() if k not in measured} for r in read_records(folder / LOG_FILE)]


class Quantized(nn.Module):
    """A table whose vectors are quantized; the loss pulls them to the origin."""

    def __init__(self, learning: str) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 8)
        self.quantizer = CascadedQuantizer(8, (50, 5), learning=learning)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out = self.quantizer(self.table(ids), ids=ids)
        return out.fused.square().mean() + out.loss


def train_without_torchrec(learning: str, frozen: tuple[int, ...]) -> tuple[int, list[bool], list[int]]:
    """A plain torch loop under `DistributedDataParallel`: codes revived, which codebooks moved, hashes of the state."""
    with process_group("cpu") as context:
        torch.manual_seed(0)
        model = Quantized(learning)
        for level in frozen:
            model.quantizer.freeze(level)
        start = [codebook.detach().clone() for codebook in model.quantizer.codebooks]
        ddp = DistributedDataParallel(model, broadcast_buffers=False)
        optimizer = torch.optim.Adam([p for p in ddp.parameters() if p.requires_grad], lr=0.01)
        maintenance = CodebookMaintenance(
            {"item": model.quantizer},
            MaintenanceSettings(start="kmeans", kmeans_step=5, kmeans_batches=2, revive_every=7),
            Replicas(context.rank, context.world_size, dist.all_reduce),
            lambda p: optimizer.state.get(p, {}),
        )
        random, revived = torch.Generator().manual_seed(context.rank), 0
        for step in range(1, 31):
            optimizer.zero_grad()
            ddp(torch.randint(0, 300, (40,), generator=random)).backward()
            optimizer.step()
            revived += sum(maintenance.after_step(step).values())
        moved = [not torch.equal(*pair) for pair in zip(model.quantizer.codebooks, start, strict=True)]
        return revived, moved, [int(fingerprint(value)) for value in model.state_dict().values()]


@pytest.mark.parametrize(("world_size", "frozen"), [(2, ()), (2, (0,)), (4, (1,))])
@pytest.mark.parametrize("learning", LEARNING)
def test_a_plain_torch_loop_keeps_replicas_the_same_and_frozen_codebooks_as_they_are(
    learning: str, world_size: int, frozen: tuple[int, ...]
) -> None:
    first, *others = run_ranks(world_size, train_without_torchrec, learning, frozen)
    assert first[0] > 0 or frozen
    assert first[1] == [level not in frozen for level in range(2)]
    assert all(other == first for other in others)
