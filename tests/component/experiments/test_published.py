"""Published values of a grid: they can be left out, and other data than theirs is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cove_dist.errors import ConfigError
from cove_dist.experiments.claims import claims_of
from cove_dist.experiments.grid import GridConfig, cells_of
from cove_dist.experiments.results import Results, collect
from cove_dist.experiments.tables import comparison_table
from tests.component.experiments.grids import small_grid, write_cell

OTHER = "Published values of Table 9 are of the data that the grid's file names, but"


def published(grid: GridConfig) -> list[float | None]:
    """The published gains of the grid's claims of COVE by AUC."""
    claims = claims_of(grid, Results({}), "test")
    return [claim.published for claim in claims if claim.metric == "auc"]


@pytest.mark.parametrize("override", ["~paper", "paper=null"])
def test_published_values_are_left_out_of_claims_and_tables(tmp_path: Path, override: str) -> None:
    assert published(small_grid(tmp_path)) == [19.5, None]
    grid = small_grid(tmp_path, override, "seeds=[0,1]")
    assert published(grid) == [None, None]
    for number, cell in enumerate(cells_of(grid)):
        write_cell(cell, {"auc": 0.5 + number / 100, "logloss": 0.6})
    results = Results.of(collect(cells_of(grid), grid))
    assert comparison_table(grid, claims_of(grid, results, "test"), "test", finished=True).header[-2:] == (
        "p (Holm)",
        "verdict",
    )


@pytest.mark.parametrize("override", ["~paper.gains", "paper.gains=null"])
def test_without_published_gains_those_of_the_values_count(tmp_path: Path, override: str) -> None:
    assert published(small_grid(tmp_path, override)) == [pytest.approx(20), None]


@pytest.mark.parametrize("key", ["paper", "paper.gains", "paper.values"])
def test_an_empty_section_would_remove_nothing_and_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=\{{ \}}: is merged with the file .* give '~{key}' or {key}=null"):
        small_grid(tmp_path, f"{key}={{ }}")


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (['common=["data=toys"]'], f"{OTHER} the overrides of deepfm, dlrm name data=toys. The values stay"),
        (["common=[]"], f"{OTHER} the overrides of deepfm, dlrm name no data."),
        (
            ['models.dlrm=["model=dlrm","data.path=x"]'],
            f"{OTHER} the overrides of dlrm name data.path=x, data=synthetic.",
        ),
        (
            ['quantizers.cove=["quantizer=cove","data.path=x"]'],
            f"{OTHER} the overrides of deepfm, dlrm name data.path=x",
        ),
        (['models.dlrm=["model=dlrm","model.dropout=0.2"]'], None),
        (['common=["data=synthetic","data.path=unused","seed=3"]'], None),
        (['common=["data=toys"]', "paper=null"], None),
        (['common=["data=toys"]', "paper.same_data=false"], None),
        (['+models.mine=["model=dcn","data=toys"]'], None),
        (["seeds=[1]", "jobs=2"], None),
    ],
)
def test_published_values_of_other_data_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: list[str], warning: str | None
) -> None:
    """Not where a model is other data's that has no published values; the file names data=synthetic by its path."""
    small_grid(tmp_path, *overrides)
    told = [record.getMessage() for record in caplog.records if "Published values" in record.getMessage()]
    assert len(told) == (warning is not None), json.dumps(told)
    assert all(text.startswith(str(warning)) for text in told)
