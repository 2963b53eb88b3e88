"""The commands of the documents on Toys and AotM."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.documents.commands import ROOT, run_block, run_group


def test_commands_on_toys_and_aotm(workplace: Path) -> None:
    assert run_group("public", workplace) >= 20
    for run in ("aotm_sasrec", "toys_sasrec"):
        assert (workplace / "runs" / run / "config.yaml").is_file()
    assert list((workplace / "runs" / "toys_cove_bprmf" / "recommendations").glob("*.parquet"))
    run_block(ROOT / "docs" / "warm_start.md", workplace)
