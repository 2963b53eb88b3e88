"""The commands of the documents on data of one's own."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.documents.commands import ROOT, run_block, run_group


def test_commands_on_data_of_ones_own(workplace: Path) -> None:
    assert run_group("own", workplace) >= 20
    for run in ("mine", "four", "sharded", "shop"):
        assert (workplace / "runs" / run / "config.yaml").is_file()
    run_block(ROOT / "docs" / "data.md", workplace)
