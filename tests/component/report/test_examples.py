"""Ids of the largest codes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cove_dist.report.categories import load_categories, load_titles
from cove_dist.report.codes import load_codes
from cove_dist.report.examples import code_examples
from cove_dist.report.run_folder import load_run
from tests.component.report.runs import log, write_codes, write_data, write_run


def test_ids_are_shown_with_titles_and_the_most_common_category(tmp_path: Path) -> None:
    """Of 80 items the first 20 have code 1 at the coarsest level, the others code 3; one in four items has no title."""
    titles = [None if i % 4 == 0 else f"film {i}" for i in range(80)]
    genres = ["war" if i < 15 else "drama" for i in range(80)]
    known = pa.table({"original_id": range(80), "genre": genres, "title": titles})
    run = write_run(tmp_path / "run", write_data(tmp_path / "data", known), log())
    write_codes(run, "user", range(60), [[0, 0]] * 60)
    write_codes(run, "item", range(80), [[i % 12, 1 if i < 20 else 3] for i in range(80)])
    loaded = load_run(run)
    items = load_codes(loaded)[1]
    columns = load_categories(loaded, items)
    assert [each.column for each in columns] == ["genre"], "a title is no category"
    largest, smallest = code_examples(items, columns, load_titles(loaded, items), seed=3)
    assert (largest.code, largest.size, largest.share) == (3, 60, 0.75)
    assert (smallest.level, smallest.code, smallest.size) == (2, 1, 20)
    assert largest.category == "drama: 100% (of all: 81%)"
    assert smallest.category == "war: 75% (of all: 19%)"
    numbers = [int(name.removeprefix("film ")) for name in smallest.ids]
    assert len(set(numbers)) == 10 and max(numbers) < 20
    assert all(
        name.startswith("film ") == (number % 4 != 0) for name, number in zip(smallest.ids, numbers, strict=True)
    )
    assert code_examples(items, [], {}, seed=3)[0].category == ""
