"""Time, peak memory and spill of preparation: raw interactions to 5-core, encoded, split, shuffled Parquet shards.

Synthetic interactions are written to Parquet files, a share of them of one single user. `cove prepare` runs on them
under a memory limit, and so do programs of the same steps in pandas and Polars, which hold all rows in memory. Each
runs in its own process; the numbers of rows of the splits must be the same::

    python benchmarks/prepare.py --rows 10000000
    python benchmarks/prepare.py --rows 100000000 --memory-gb 2.5 --without pandas polars

pandas and Polars are not dependencies: `--rivals PYTHON` names an interpreter that has them, with pyarrow.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
PART = 1_000_000
CORE = 5
LIBRARIES = ("pandas", "polars")


def write_raw(folder: Path, rows: int, heavy: float, seed: int = 0) -> None:
    """Write interactions of ``rows / 20`` users and ``rows / 10`` items by Zipf's law; ``heavy * rows`` are of user 0.

    Times are a permutation of the rows, so that no two are equal.
    """
    folder.mkdir(parents=True)
    sizes = max(rows // 20, 10), max(rows // 10, 10)
    order = np.random.default_rng(seed).permutation(rows)
    for number, start in enumerate(range(0, rows, PART)):
        rng = np.random.default_rng([seed, number])
        count = min(PART, rows - start)
        users, items = (((size + 1.0) ** rng.random(count)).astype(np.int64) - 1 for size in sizes)
        single = rng.random(count) < heavy
        users[single], items[single] = 0, rng.integers(0, sizes[1], single.sum())
        users[~single] += 1
        table = pa.table({"user": users * 7, "item": items * 3 + 1, "time": order[start : start + count]})
        pq.write_table(table, folder / f"part-{number:05d}.parquet")


def ours(raw: Path, output: Path, memory_gb: float) -> list[str]:
    settings = ["user=user", "item=item", "time=time", "label=null", "split=leave_one_out", f"core={CORE}"]
    settings += ["candidates=0", f"memory_gb={memory_gb}", f"output={output}"]
    return [sys.executable, str(ROOT / "launch" / "prepare.py"), "data=custom", f"source={raw}", *settings]


def measure(command: list[str], output: Path) -> dict[str, float]:
    """Run a command and return its seconds, CPU seconds, peak resident memory, and the peak of its scratch folder."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    largest = {"database": 0, "spill": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            for name in largest:
                largest[name] = max(largest[name], _size(output, name))

    watcher = threading.Thread(target=watch)
    watcher.start()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{errors.decode()[-2000:]}")
    return {
        "seconds": time.monotonic() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss / 1e6,
        **{f"{name}_gb": size / 1e9 for name, size in largest.items()},
    }


def _size(output: Path, name: str) -> int:
    pattern = "work.duckdb*" if name == "database" else "spill/**/*"
    total = 0
    for path in output.parent.glob(f"{output.name}.*.partial/scratch/{pattern}"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # removed in between
            continue
    return total


def in_memory(library: str, raw: Path, output: Path) -> None:
    """Do the same steps with all rows in memory."""
    output.mkdir(parents=True)
    splits = _pandas(raw) if library == "pandas" else _polars(raw)
    for split, (user, item) in splits.items():
        if split == "train":
            order = np.random.default_rng(0).permutation(len(user))
            user, item = user[order], item[order]
        table = pa.table({"user_id": user, "item_id": item, "label": np.ones(len(user), np.float32)})
        pq.write_table(table, output / f"{split}.parquet", compression="zstd", row_group_size=65_536)
    (output / "rows.json").write_text(json.dumps({split: len(user) for split, (user, _) in splits.items()}))


def _pandas(raw: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import pandas as pd

    rows = pd.read_parquet(raw).sort_values("time").drop_duplicates(["user", "item"])
    while True:
        before = len(rows)
        for column in ("user", "item"):
            rows = rows[rows.groupby(column)[column].transform("size") >= CORE]
        if len(rows) == before:
            break
    last = rows.groupby("user").cumcount(ascending=False)
    user, item = (pd.factorize(rows[name], sort=True)[0] for name in ("user", "item"))
    parts = {"train": last > 1, "validation": last == 1, "test": last == 0}
    return {split: (user[chosen.to_numpy()], item[chosen.to_numpy()]) for split, chosen in parts.items()}


def _polars(raw: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import polars as pl

    rows = pl.read_parquet(raw / "*.parquet").sort("time").unique(["user", "item"], keep="first", maintain_order=True)
    while True:
        before = len(rows)
        for column in ("user", "item"):
            rows = rows.filter(pl.len().over(column) >= CORE)
        if len(rows) == before:
            break
    rows = rows.with_columns(
        last=pl.int_range(pl.len()).reverse().over("user"),
        user=pl.col("user").rank("dense") - 1,
        item=pl.col("item").rank("dense") - 1,
    )
    parts = {"train": pl.col("last") > 1, "validation": pl.col("last") == 1, "test": pl.col("last") == 0}
    chosen = {split: rows.filter(condition) for split, condition in parts.items()}
    return {
        split: tuple(each[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        for split, each in chosen.items()
    }


def rows_of(output: Path) -> dict[str, int]:
    if (output / "rows.json").is_file():
        return json.loads((output / "rows.json").read_text())
    return json.loads((output / "report.json").read_text())["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--heavy", type=float, default=0.4, help="share of the rows that one user has")
    parser.add_argument("--memory-gb", type=float, default=2.5, help="data.memory_gb")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_prepare"))
    parser.add_argument("--rivals", default=sys.executable, help="a Python that has pandas and Polars")
    parser.add_argument("--without", nargs="*", default=[], choices=LIBRARIES)
    parser.add_argument("--worker", nargs=3, metavar=("LIBRARY", "RAW", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        library, raw, output = arguments.worker
        return in_memory(library, Path(raw), Path(output))
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    write_raw(folder / "raw", arguments.rows, arguments.heavy)
    results = {"cove": measure(ours(folder / "raw", folder / "cove", arguments.memory_gb), folder / "cove")}
    for library in (name for name in LIBRARIES if name not in arguments.without):
        worker = [arguments.rivals, __file__, "--worker", library, str(folder / "raw"), str(folder / library)]
        results[library] = measure(worker, folder / library)
        if rows_of(folder / library) != rows_of(folder / "cove"):
            sys.exit(f"{library} kept {rows_of(folder / library)} rows, cove {rows_of(folder / 'cove')}")
    from measured import write_measurements  # a rival's Python lacks it

    write_measurements(folder / "results.json", {"rows": arguments.rows, "results": results})
    print(f"{arguments.rows:,} rows, {arguments.heavy:.0%} of one user; kept: {rows_of(folder / 'cove')}")
    print(f"{'':8} {'seconds':>8} {'CPU s':>8} {'peak GB':>8} {'database GB':>12} {'spill GB':>9}")
    for name, r in results.items():
        print(
            f"{name:8} {r['seconds']:8.1f} {r['cpu_seconds']:8.1f} {r['peak_gb']:8.2f} {r['database_gb']:12.2f}"
            f" {r['spill_gb']:9.2f}"
        )


if __name__ == "__main__":
    main()
