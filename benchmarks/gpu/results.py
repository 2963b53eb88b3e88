"""Results of the GPU benchmark: one JSON file and one page of tables, both rewritten after every case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goals import goals

from data_pipeline.json_files import write_json

Row = dict[str, Any]  # "ok": False if a check failed, "error" if the case raised, "skipped" with the reason
JSON, PAGE = "results.json", "summary.md"


class Results:
    """The rows of all sections, in a folder.

    Args:
        folder: Folder of the two files.
        earlier: Results of an earlier call, which are continued; None: those in the folder, if any.
    """

    def __init__(self, folder: Path, earlier: Path | None = None) -> None:
        self._folder = folder
        self.content: dict[str, Any] = {"sections": {}}
        self.load(folder / JSON if earlier is None else earlier)

    def load(self, source: Path | None = None) -> None:
        """Read what another process has written into the folder, or another file."""
        source = source or self._folder / JSON
        if source.is_file():
            self.content = json.loads(source.read_text())

    def section(self, name: str) -> dict[str, Any]:
        """Return the record of a section: its status, its rows by case, and the case that was started last."""
        return self.content["sections"].setdefault(name, {"status": "not started", "rows": {}, "started": None})

    def settled(self, name: str) -> list[str]:
        """Return the cases that another call need not repeat: measured, passed, or impossible here."""
        rows = self.section(name)["rows"]
        return [case for case, row in rows.items() if "error" not in row and row.get("ok", True)]

    def start(self, name: str, case: str) -> None:
        """Record that a case begins, so that one that ends its process is known."""
        self.section(name)["started"] = case
        self.save()

    def add(self, name: str, case: str, row: Row) -> None:
        record = self.section(name)
        record["rows"][case], record["started"] = row, None
        self.save()

    def close(self, name: str, status: str, seconds: float) -> None:
        """Record how a section ended; a case that was under measurement gets an error."""
        record = self.section(name)
        if (case := record["started"]) is not None:
            record["rows"][case], record["started"] = {"error": f"ended with its process: {status}"}, None
        record["status"], record["seconds"] = status, record.get("seconds", 0.0) + seconds
        self.save()

    def save(self) -> None:
        write_json(self._folder / JSON, self.content)
        (self._folder / PAGE).write_text(page(self.content))

    def failures(self) -> list[str]:
        """Return the sections that are not complete, and the cases that failed or raised."""
        found = []
        for name, record in self.content["sections"].items():
            if record["status"] != "complete":
                found.append(f"{name}: {record['status']}")
            for case, row in record["rows"].items():
                if "error" in row or not row.get("ok", True):
                    found.append(f"{name}, {case}: {row.get('error', 'check failed')}")
        return found


def page(content: Mapping[str, Any]) -> str:
    """Return the tables of all sections as Markdown."""
    machine = content.get("machine", {})
    lines = ["# On a GPU", "", ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    lines += ["| section | status | cases | failed | seconds |", "|---|---|---|---|---|"]
    for name, record in content["sections"].items():
        rows = record["rows"].values()
        failed = sum("error" in row or not row.get("ok", True) for row in rows)
        lines.append(f"| {name} | {record['status']} | {len(rows)} | {failed} | {record.get('seconds', 0):.0f} |")
    if reached := goals(content["sections"]):
        lines += ["", "## Goals", "", *table(reached)]
    for name, record in content["sections"].items():
        lines += ["", f"## {name}", "", *table(record["rows"])]
    return "\n".join(lines) + "\n"


def table(rows: Mapping[str, Row]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| case | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for case, row in rows.items():
        lines.append(f"| {case} | " + " | ".join(shown(row.get(key)) for key in columns) + " |")
    return lines if rows else []


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")
