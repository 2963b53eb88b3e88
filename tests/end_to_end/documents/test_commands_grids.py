"""The searches and grids of the documents."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.documents.commands import run_group


def test_searches_and_grids(workplace: Path) -> None:
    assert run_group("grids", workplace) >= 5
    assert (workplace / "results" / "table4_movielens" / "results.parquet").is_file()
    tables = (workplace / "runs" / "my_grid" / "tables.md").read_text()
    assert "| model | quantizer | auc | logloss | brier | runs |" in tables
    assert "2 of 2" in tables and "Not in these tables" not in tables
