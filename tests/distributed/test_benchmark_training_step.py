"""An all-reduce of the moving averages that overlaps the backward pass trains what the trainer does."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from cove_dist.distributed import process_group
from tests.configurations import COVE
from tests.distributed.ranks import run_ranks

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("training_step")
sys.path.remove(BENCHMARKS)

TINY = ("model.hidden_units=[16,8]", "model.dropout=0", "embeddings.dim=8", "trainer.batch_size=240", *COVE[1:])


def codebooks(prepared: str) -> dict[str, list[float]]:
    """Before and after some steps, by contestant."""
    with process_group("cpu") as context:
        contestants = benchmark.build_contestants(benchmark.Settings(prepared, TINY), context)
        before = flat(contestants[benchmark.OVERLAPPED])
        for contestant in contestants.values():
            for _ in range(5):
                contestant.step()
        return {"before": before} | {name: flat(one) for name, one in contestants.items()}


def flat(contestant) -> list[float]:
    return [
        x for quantizer in contestant.quantizers.values() for e in quantizer.codebooks for x in e.flatten().tolist()
    ]


def test_overlapped_and_later_all_reduce_agree(prepared: Path) -> None:
    first, second = run_ranks(2, codebooks, str(prepared))
    assert first == second
    assert first["COVE, ema"] == first[benchmark.OVERLAPPED] != first["before"]
