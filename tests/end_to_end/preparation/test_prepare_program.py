"""The program that prepares a data set: its short keys, and its refusals before any file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist.commands.prepare import overrides, run
from cove_dist.errors import ConfigError
from data_pipeline.schema import Schema
from tests.unit.data.prepare_helpers import some_rows, write_csv


def test_keys_of_the_data_set_need_no_prefix() -> None:
    arguments = ["data=custom", "source=a.csv", "data.user=u", "seed=3", "output=out", "overwrite=true"]
    assert overrides(arguments) == [
        "data=custom",
        "data.source=a.csv",
        "data.user=u",
        "seed=3",
        "output=out",
        "overwrite=true",
    ]


def test_a_data_set_is_prepared_from_overrides(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", some_rows())
    columns = ["user=user", "item=item", "time=time"]
    run(["data=custom", f"source={raw}", *columns, f"output={tmp_path / 'out'}"])
    assert {name: split.rows for name, split in Schema.load(tmp_path / "out").splits.items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }


def test_a_class_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\._target_ = cove_dist\.models\.ctr\.dcn\.DCN: not a data set"):
        run(["data=custom", "data._target_=cove_dist.models.ctr.dcn.DCN", f"output={tmp_path / 'out'}"])


@pytest.mark.parametrize("value", ["true", "0", "1.5"])
def test_a_setting_of_the_wrong_type_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.core = (?i:{value}): "):
        run(["data=toys", f"data.core={value}", f"output={tmp_path / 'out'}"])


def test_a_list_of_files_is_given_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = some_rows()
    for name, part in (("a.csv", rows[:60]), ("b.csv", rows[60:])):
        write_csv(tmp_path / name, part)
    columns = ["user=user", "item=item", "time=time"]
    for number, source in enumerate(("[a.csv,b.csv]", '["a.csv","b.csv"]', "[ab].csv")):  # the last one is a glob
        run(["data=custom", f"source={source}", *columns, f"output=out{number}"])
        assert sum(split.rows for split in Schema.load(tmp_path / f"out{number}").splits.values()) == 100
    (tmp_path / "[c]").mkdir()
    write_csv(tmp_path / "[c]" / "c.csv", rows)
    run(["data=custom", "source=[c]", *columns, "output=folder"])  # a folder of this name
