"""Gradient accumulation in whole runs: two real ranks have the losses of one, and a resumed run goes on exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist.training.program import train
from tests.configurations import COVE, small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.test_training import NO_DROPOUT, training_losses
from tests.interactions import SMALL_RUN, prepare_small

LARGE = ("embeddings.init_std=0.3", "embeddings.optimizer.learning_rate=0.05", "trainer.accumulate_steps=2")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_two_ranks_accumulate_as_one_does(kind: str, prepared: Path, tmp_path: Path) -> None:
    def losses(world_size: int) -> dict[int, float]:
        output = tmp_path / f"ranks_{world_size}" / "run"
        given = [*small_run(prepared, output, NO_DROPOUT), "trainer.epochs=1"]
        if kind == "sparse":
            own = ("model=bprmf", "embeddings.optimizer.name=sparse_rmsprop", "trainer.log_every=1")
            given = [*SMALL_RUN, *own, f"data.path={prepare_small(output.parent)}", f"output={output}"]
        run_ranks(world_size, train, [*given, *LARGE])
        return training_losses(output)

    one, two = losses(1), losses(2)
    assert len(one) >= 4
    assert one[max(one)] != pytest.approx(one[1], rel=1e-3)
    assert two == pytest.approx(one, rel=5e-5)


def test_steps_of_several_batches_are_updates_and_a_resumed_run_goes_on_exactly(prepared: Path, tmp_path: Path) -> None:
    def losses(folder: str, *overrides: str) -> dict[int, float]:
        given = ("trainer.accumulate_steps=3", "trainer.schedule.name=linear", "trainer.schedule.steps=8", *COVE)
        train([*small_run(prepared, tmp_path / folder, *given), *overrides])
        return training_losses(tmp_path / folder)

    whole = losses("whole")
    assert sorted(whole) == list(range(1, 9))  # 10 batches an epoch: steps of 3, 3, 3 and 1
    losses("cut", "trainer.max_steps=6")
    assert losses("cut", "trainer.checkpoint.resume=auto") == whole
