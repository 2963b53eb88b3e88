"""The benchmark of the CTR heads: whose figures are compared with whose, and how the share of products is made."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cove_dist.config_folders import config_folder

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("ctr_throughput")
sys.path.remove(BENCHMARKS)


def one_round(head: str, ours: float, theirs: float, peak: float) -> dict:
    figures = {"base": {"samples_per_s": ours, "gflop_per_row": 0.01}, benchmark.FUXICTR: {"samples_per_s": theirs}}
    return {"head": head, "peak_gflops": peak, "figures": figures}


def test_ratios_and_shares_are_of_the_same_round() -> None:
    rounds = [
        one_round("dcn", 100.0, 50.0, 2.0),
        one_round("deepfm", 7.0, 7.0, 1.0),
        one_round("dcn", 300.0, 100.0, 4.0),
        one_round("dcn", 200.0, 200.0, 10.0),
    ]
    dcn, fuxictr, deepfm, _ = benchmark.summarize(rounds)
    assert (dcn["head"], dcn["contestant"], deepfm["head"]) == ("dcn", "base", "deepfm")
    assert [dcn[key] for key in ("samples_per_s", "ratio", "lowest", "highest")] == [200.0, 2.0, 1.0, 3.0]
    assert dcn["matmul_share"] == pytest.approx(0.5)  # of 0.5, 0.75 and 0.2
    assert fuxictr["ratio"] == 1.0
    assert "matmul_share" not in fuxictr


@pytest.mark.parametrize("head", benchmark.HEADS)
def test_every_head_has_its_experiments(head: str) -> None:
    for name in (f"movielens_{head}", f"movielens_cove_{head}"):
        assert (config_folder() / "experiment" / f"{name}.yaml").is_file()


def test_a_program_that_fails_is_shown_with_its_errors() -> None:
    with pytest.raises(SystemExit, match="out of luck"):
        benchmark.last_line([sys.executable, "-c", "raise SystemExit('out of luck')"], threads=1)
