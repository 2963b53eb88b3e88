"""Implicit feedback of two days: today some users and items are new, some are gone, and all have other numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.datasets.toys import Toys
from data_pipeline.preparation.prepare import prepare
from tests.interactions import write_raw


class TwoDays(NamedTuple):
    """Prepared folders, and the raw files of today."""

    yesterday: Path
    today: Path
    raw_today: Path

    def keeping(self) -> Path:
        """Return today's data, prepared once, in which yesterday's ids keep their rows."""
        folder = self.today.parent / "keeping"
        if not folder.exists():
            _prepare(self.raw_today, folder, str(self.yesterday))
        return folder


def prepare_two_days(folder: Path) -> TwoDays:
    """Yesterday has the users below 150 and no item above 1070; today has those from 110 and no item below 1005."""
    lines = (write_raw(folder / "raw") / "Toys_and_Games.txt").read_text().splitlines()
    lists = [np.array(line.split(), int) for line in lines]
    days = {
        "yesterday": [(each[0], each[1:][each[1:] <= 1070]) for each in lists if each[0] < 150],
        "today": [(each[0], each[1:][each[1:] >= 1005]) for each in lists if each[0] >= 110],
    }
    raw = {name: _write_day(folder, name, rows) for name, rows in days.items()}
    for name, files in raw.items():
        _prepare(files, folder / name)
    return TwoDays(folder / "yesterday", folder / "today", raw["today"])


def _write_day(folder: Path, name: str, rows: list[tuple[int, np.ndarray]]) -> Path:
    raw = folder / f"raw_{name}"
    raw.mkdir()
    text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in rows if len(items) > 2)
    (raw / "Toys_and_Games.txt").write_text(text)
    kinds = json.loads((folder / "raw" / "Toys_and_Games_item2attributes.json").read_text())
    (raw / "Toys_and_Games_item2attributes.json").write_text(json.dumps(kinds))
    return raw


def _prepare(raw: Path, folder: Path, keep_ids: str | None = None) -> None:
    prepare(Toys(source=str(raw), candidates=10, core=None, keep_ids=keep_ids), folder, name="toys")
