"""The quickstart, and the commands of the documents on MovieLens."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.documents.commands import run_group


def test_commands_on_movielens(workplace: Path) -> None:
    assert run_group("movielens", workplace) >= 12
    for run in ("movielens_deepfm", "movielens_cove_deepfm", "movielens_cove_dlrm"):
        assert (workplace / "runs" / run / "config.yaml").is_file()
    assert (workplace / "runs" / "movielens_cove_dlrm" / "report" / "report.html").is_file()
