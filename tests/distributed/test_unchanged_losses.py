"""The losses of small runs of every task, on 1 and 2 ranks, equal those recorded in ``unchanged_losses.json``.

A change of structure must not change them. On the machine that recorded them they agree to the last bit; other
processors round sums differently, so the test allows for float32 rounding. ``python -m
tests.distributed.test_unchanged_losses`` compares bits, and with ``--record`` writes the file after an intended change.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from cove_dist.training.program import train
from data_pipeline.datasets.playlists import Playlists
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.preparation.prepare import prepare
from tests.component.sequential.runs import small_run as sequential_run
from tests.configurations import COVE
from tests.configurations import small_run as ctr_run
from tests.distributed.ranks import run_ranks
from tests.interactions import SMALL_RUN, prepare_small
from tests.unit.data.playlist_files import raw_playlists, write_release

RECORDED = Path(__file__).with_name("unchanged_losses.json")
KEPT = ("loss", "task", "quantization_item", "quantization_user", "ndcg@5", "ndcg@10", "auc", "logloss")

Series = dict[str, list[str]]  # by name, the values as hexadecimal floats


def runs(folder: Path) -> dict[str, list[str]]:
    """Prepare a small data set for each task; return the overrides of its run, without an output folder."""
    synthetic = Synthetic(users=60, items=80, rows=3001, user_tree=(6, 2), item_tree=(8, 2))
    prepare(synthetic, folder / "ctr", name="synthetic")
    interactions = prepare_small(folder / "cf")
    source = write_release(folder / "raw", raw_playlists())
    playlists = Playlists(source=str(source), file="AotM", min_length=5, max_length=16, min_occurrences=10)
    prepare(playlists, folder / "sequential", name="lists")
    cove_items = ("quantizer=cove_items", "quantizer.item_levels=[12,4]", "quantizer.omega_c=0.5")
    return {
        "ctr": ctr_run(folder / "ctr", "unused", *COVE),
        "cf": [*SMALL_RUN, f"data.path={interactions}", "model=neumf", "trainer.log_every=1", *COVE],
        "sequential": sequential_run(folder / "sequential", "Recurrent", "unused", *cove_items),
    }


def measure(folder: Path) -> dict[str, Series]:
    """Train each run on 1 and on 2 ranks; return the losses of every step and the validation metrics."""
    found = {}
    for task, overrides in runs(folder).items():
        for ranks in (1, 2):
            output = folder / f"{task}_{ranks}"
            run_ranks(ranks, train, [*overrides, f"output={output}"])
            records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
            series = {name: [float(r[name]).hex() for r in records if name in r] for name in KEPT}
            found[f"{task}, {ranks} ranks"] = {name: values for name, values in series.items() if values}
    return found


def test_losses_are_those_recorded(tmp_path: Path) -> None:
    recorded, measured = json.loads(RECORDED.read_text()), measure(tmp_path)
    assert measured.keys() == recorded.keys()
    for run, series in recorded.items():
        assert measured[run].keys() == series.keys(), run
        for name, values in series.items():
            found, expected = ([float.fromhex(value) for value in each] for each in (measured[run][name], values))
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), f"{run}: {name}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(temporary))
    if "--record" in sys.argv:
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    elif found != json.loads(RECORDED.read_text()):
        sys.exit("the losses differ from those recorded")
