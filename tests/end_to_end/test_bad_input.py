"""Bad input under torchrun: one clear message, exit code not 0, all ranks gone within seconds, nothing half-written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.configurations import small_run
from tests.end_to_end.programs import launch

Damage = Callable[[Path], None]


def change_column(name: str, value: float | None, split: str = "train") -> Damage:
    """Put one wrong value in the last file of a split, in the last row."""

    def damage(data: Path) -> None:
        path = sorted((data / split).glob("*.parquet"))[-1]
        table = pq.read_table(path)
        column = table[name].combine_chunks()
        wrong = pa.concat_arrays([column[:-1], pa.array([value], column.type)])
        pq.write_table(table.set_column(table.column_names.index(name), name, wrong), path, row_group_size=100)

    return damage


def drop_column(data: Path) -> None:
    for path in (data / "train").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["item_id"]), path)


def truncate(data: Path) -> None:
    path = sorted((data / "train").glob("*.parquet"))[-1]
    path.write_bytes(path.read_bytes()[:-200])


def remove(data: Path) -> None:
    sorted((data / "train").glob("*.parquet"))[-1].unlink()


def empty_validation(data: Path) -> None:
    schema = json.loads((data / "schema.json").read_text())
    for file in schema["splits"]["validation"]["files"]:
        path = data / file
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.less(table["user_id"], -1)), path)
    schema["splits"]["validation"]["rows"] = 0
    (data / "schema.json").write_text(json.dumps(schema))


CASES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "null id": (change_column("item_id", None), ("item_id", "null")),
    "negative id": (change_column("user_id", -3), ("user_id", "-3")),
    "id out of range": (change_column("item_id", 99_999), ("item_id", "99999")),
    "label not 0 or 1": (change_column("label", 2.0), ("label", "2")),
    "missing column": (drop_column, ("item_id",)),
    "truncated file": (truncate, ("part-",)),
    "missing file": (remove, ("part-", "no such file")),
    "empty split": (empty_validation, ("validation",)),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_data_stops_every_rank(prepared: Path, tmp_path: Path, case: str) -> None:
    damage, words = CASES[case]
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    damage(data)
    started = time.monotonic()
    done = launch("train", *small_run(data, tmp_path / "run"), ranks=2)
    assert time.monotonic() - started < 60
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert errors, done.stderr
    message = done.stderr[done.stderr.index("error") :]
    assert all(word in message for word in words), message
    assert 'train.py", line' not in done.stderr, "a rank showed a traceback"
    assert not list(tmp_path.glob("run/checkpoints/*.partial"))


def test_checkpoint_of_another_model(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert launch("train", *small_run(prepared, run, "trainer.epochs=1")).returncode == 0
    other = small_run(prepared, run, "trainer.checkpoint.resume=auto", "model.hidden_units=[4]")
    done = launch("train", *other, ranks=2)
    assert done.returncode != 0
    assert "cannot be resumed at step" in done.stderr
    assert "model.hidden_units: [16, 8] there, [4] here" in done.stderr


def test_data_that_is_not_there(tmp_path: Path) -> None:
    done = launch("train", *small_run(tmp_path / "nowhere", tmp_path / "run"), ranks=2)
    assert done.returncode != 0
    assert "nowhere/schema.json: no such file. Prepare the data first" in done.stderr
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_fit_the_ranks(prepared: Path, tmp_path: Path) -> None:
    done = launch("train", *small_run(prepared, tmp_path / "run", "trainer.batch_size=241"), ranks=2)
    assert done.returncode != 0
    assert "): trainer.batch_size = 241: counts rows over all ranks" in done.stderr
    assert 'train.py", line' not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data=custom", "source=nowhere/*.parquet", "user=u", "item=i", "label=l"), "nowhere/*.parquet"),
        (("data=synthetic", "users=-5"), "data.users = -5: input should be greater than 0"),
        (("data=synthetic", "usres=5"), "data.usres: unknown key; did you mean data.users"),
    ],
)
def test_preparing_from_bad_input(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = launch("prepare", *arguments, f"output={tmp_path}/out")
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
