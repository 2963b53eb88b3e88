"""Resident memory of training ranks over an epoch: it must not grow with the rows streamed.

    cove prepare data=synthetic rows=10000000 users=1000000 items=1000000 output=data/synthetic_10m
    python benchmarks/training_memory.py --data data/synthetic_10m --ranks 2 --json FILE

Trains DeepFM with a small head, tables sharded row-wise under row-wise Adagrad, for one epoch under torchrun. Every
report of the run carries the largest rank's resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import write_measurements
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (
    "data=synthetic",
    "model.hidden_units=[64,32]",
    "embeddings.optimizer.name=rowwise_adagrad",
    "embeddings.optimizer.learning_rate=0.05",
    "embeddings.sharding.default=row_wise",
    "trainer.device=cpu",
    "trainer.epochs=1",
    "trainer.batch_size=16384",
    "trainer.evaluation_batch_size=65536",
)


def train(data: Path, ranks: int, overrides: list[str]) -> list[dict[str, float]]:
    """Return the training reports of a run in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        arguments = [*SETTINGS, f"data.path={data}", f"output={output}", *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        subprocess.run([*torchrun, str(ROOT / "launch" / "train.py"), *arguments], check=True, env=environment)
        records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="further settings, key=value")
    arguments = parser.parse_args()
    reports = train(arguments.data, arguments.ranks, arguments.overrides)
    table = Table("share of the run", "steps", "resident MB of the largest rank", "samples/s")
    for tenth in range(0, 11):
        report = reports[min(tenth * (len(reports) - 1) // 10, len(reports) - 1)]
        cells = (f"{tenth * 10} %", f"{report['step']:,}", f"{report['resident_mb']:,.0f}")
        table.add_row(*cells, f"{report['samples_per_second']:,.0f}")
    Console().print(table)
    if arguments.json:
        write_measurements(arguments.json, {"reports": reports})


if __name__ == "__main__":
    main()
