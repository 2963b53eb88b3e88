"""Preparation reports data with which training would fail or mislead, by original ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch.nn import ModuleDict

from data_pipeline.datasets.custom import Custom
from data_pipeline.datasets.toys import Toys
from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.preparation import names
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.streaming import transforms, vocabulary
from tests.unit.data.prepare_helpers import NAMES, pairs, prepare_custom, read_decoded, some_rows, write_csv


def error(folder: Path, rows: list, columns: tuple = NAMES, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        prepare_custom(write_csv(folder / "raw.csv", rows, columns), folder / "out", **settings)
    return str(caught.value)


def warnings_of(folder: Path, rows: list, columns: tuple = NAMES, **settings: object) -> list[str]:
    """Return the warnings of report.json."""
    prepare_custom(write_csv(folder / "raw.csv", rows, columns), folder / "out", **settings)
    return Report.load(folder / "out").warnings


@pytest.mark.parametrize("label", [0, 1])
def test_equal_labels_are_logged_as_a_warning(tmp_path, caplog, label):
    found = warnings_of(tmp_path, [(user, item, label, time) for user, item, _, time in some_rows()])
    assert found[0].startswith(
        f"column 'label': all labels of the train split are {label}; a model has nothing to learn"
    )
    assert "data.label=null" in found[0]
    assert [record.levelname for record in caplog.records if found[0] in record.message] == ["WARNING"]


@pytest.mark.parametrize(("threshold", "relation"), [(9, "No rating reaches"), (-1, "Every rating reaches")])
def test_a_threshold_beyond_all_ratings_is_logged_as_a_warning(tmp_path, threshold, relation):
    found = warnings_of(tmp_path, some_rows(), label=None, rating="label", threshold=threshold)
    assert f"{relation} data.threshold = {threshold}" in found[0]


def test_a_split_with_one_label_is_logged_as_a_warning(tmp_path):
    rows = [(user, item, 1 if time > 17 else label, time) for user, item, label, time in some_rows()]
    assert warnings_of(tmp_path, rows) == [
        "column 'label': all labels of the test split are 1: metrics such as AUC are undefined on it"
    ]


def test_a_dense_column_that_is_constant_only_in_training_is_refused(tmp_path):
    rows = [(*row, 5.0 if row[3] < 18 else 95391.5) for row in some_rows()]
    message = error(tmp_path, rows, (*NAMES, "price"), dense=("price",))
    assert message.startswith("column 'price': all values of the training split are 5, but test has 95391.5")
    assert "Leave it out of data.dense" in message


@pytest.mark.parametrize(("later", "logged"), [(lambda k: k % 7, False), (lambda k: 1e6, True)])
def test_values_far_outside_those_of_training_are_logged_as_a_warning(tmp_path, later, logged):
    rows = [(*row, k % 7 if row[3] < 18 else later(k)) for k, row in enumerate(some_rows())]
    found = warnings_of(tmp_path, rows, (*NAMES, "price"), dense=("price",))
    assert [warning.startswith("column 'price': test has the value 1e+06") for warning in found] == [True] * logged


def saturated_rows() -> list[tuple]:
    """Make (user, item, part): user "all" has the ten items of training; the others have three each, one in test."""
    rows = [("all", f"i{item}", "train") for item in range(10)]
    for user in range(10):
        rows += [(f"u{user}", f"i{(user + step) % 10}", "test" if step == 2 else "train") for step in range(3)]
    return rows


def prepare_saturated(folder: Path, **settings: object) -> dict[str, list[dict]]:
    source = write_csv(folder / "raw.csv", saturated_rows(), ("user", "item", "part"))
    prepare_custom(source, folder / "out", label=None, time=None, split_column="part", **settings)
    return read_decoded(folder / "out")


def test_a_user_who_has_every_item_of_training_is_refused_or_left_out(tmp_path):
    with pytest.raises(DataError, match=r"user 'all' .* all items of the training split.*data\.saturated_users=drop"):
        prepare_saturated(tmp_path, candidates=0)
    splits = prepare_saturated(tmp_path, candidates=0, saturated_users="drop")
    assert {user for rows in splits.values() for user, _ in pairs(rows)} == {f"u{user}" for user in range(10)}
    report = Report.load(tmp_path / "out")
    assert report.rows_dropped == {"users with too many items": 10}
    assert (report.rows_read, report.samples) == (40, 30)


def test_users_with_too_few_items_for_the_candidates_are_named(tmp_path):
    with pytest.raises(DataError, match=r"user 'all' has interacted with all items"):
        prepare_saturated(tmp_path, candidates=8)
    rows = [row for row in saturated_rows() if row[0] != "all"]
    source = write_csv(tmp_path / "raw.csv", rows, ("user", "item", "part"))
    settings = {"label": None, "time": None, "split_column": "part", "candidates": 8}
    pattern = r"user 'u0' .* 3 of the 10 items \(and 9 more such users\); .* 8 other .*data\.candidates \(to 7"
    with pytest.raises(DataError, match=pattern):
        prepare_custom(source, tmp_path / "out", **settings)
    with pytest.raises(DataError, match=r"no rows are left.*Lower data\.candidates"):
        prepare_custom(source, tmp_path / "out", saturated_users="drop", **settings)


def test_removing_a_user_can_saturate_another_user(tmp_path):
    """Without "all", "most" has all remaining items, and is removed as well."""
    rows = [("all", f"i{item}", 0, item) for item in range(9)] + [("most", f"i{item}", 0, item) for item in range(8)]
    rows += [(f"u{user}", f"i{user + step}", 0, step) for user in range(6) for step in range(3)]
    source = write_csv(tmp_path / "raw.csv", rows)
    prepare_custom(source, tmp_path / "out", label=None, candidates=3, saturated_users="drop")
    users = {user for split in read_decoded(tmp_path / "out").values() for user, _ in pairs(split)}
    assert users == {f"u{user}" for user in range(6)}


def test_saturated_users_is_refused_where_it_has_no_effect(tmp_path):
    assert error(tmp_path, some_rows(), saturated_users="drop").startswith(
        "data.saturated_users = drop: only for negatives"
    )


def test_candidates_are_refused_where_all_items_are_ranked(tmp_path):
    settings = {"label": None, "sequences": 5, "candidates": 50}
    assert error(tmp_path, some_rows(), **settings).startswith("data.candidates = 50: sequences are ranked against all")


@pytest.mark.parametrize("first", ["user", "item", "label", "time", "city"])
def test_two_roles_of_one_column_are_refused(first):
    settings = {"user": "user", "item": "item", "label": "label", "time": "time", "categorical": ("city",)}
    for second in settings:
        if second not in (first, "categorical"):
            named = settings | {second: first}
            with pytest.raises(DataError, match=f"column '{first}': .*both name it, and a column has one role"):
                Custom(source="x.csv", **named)


ADDED = [
    *(transforms.NEGATIVES, transforms.EDGE_ITEM, transforms.EDGE_ATTRIBUTE, transforms.EDGE_NEGATIVE),
    *(transforms.USER_BLOCK, transforms.ITEM_BLOCK, vocabulary.VOCABULARY),
    *(
        "candidates",
        "attributes",
        "user_id",
        "item_id",
        "label",
        "request_id",
        "playlist_id",
        "owner_id",
        "input",
        "target",
    ),
]


@pytest.mark.parametrize("name", [*ADDED, "Candidates", "USER_ID"])
@pytest.mark.parametrize("kind", ["categorical", "dense"])
def test_a_feature_named_like_an_internal_column_is_refused(name, kind):
    with pytest.raises(DataError, match=f"column '{name}': the name is taken"):
        Custom(source="x.csv", user="u", item="i", **{kind: (name,)})


@pytest.mark.parametrize(
    "name", ["type", "keys", "items", "training", "a.b", "x_first_order", "a/b", "", "a\tb", "é" * 101]
)
def test_a_category_whose_name_no_table_or_file_can_have_is_refused(name):
    with pytest.raises(DataError, match="Rename"):
        Custom(source="x.csv", user="u", item="i", categorical=(name,))


@pytest.mark.parametrize("name", ["genre", "a b", "größe", "a-b", "1", "weight", "x=y", "split", "row", "rows", "raw"])
def test_other_names_are_kept(tmp_path, name):
    assert not hasattr(ModuleDict(), name) and name not in names.INTERNAL
    rows = [(*row, f"c{k % 3}") for k, row in enumerate(some_rows())]
    source = write_csv(tmp_path / "raw.csv", rows, (*NAMES, name))
    schema = prepare_custom(source, tmp_path / "out", categorical=(name,))
    assert schema.categorical[2].name == name


@pytest.mark.parametrize(("longest", "empty"), [(1, "validation"), (2, "validation"), (3, "train")])
def test_histories_too_short_for_sequences_are_refused(tmp_path, longest, empty):
    rows = [(user, 10 * user + step, 1, step) for user in range(5) for step in range(longest)]
    message = error(tmp_path, rows, label=None, sequences=4)
    assert message.startswith(f"the {empty} split is empty")


def test_an_item_with_every_attribute_is_left_out_of_the_graph(tmp_path, caplog):
    (tmp_path / "Toys_and_Games.txt").write_text("7 3 1 2\n8 1 2\n9 2 3 1 4\n")
    attributes = {"1": [5, 6], "2": [6], "3": [5]}
    (tmp_path / "Toys_and_Games_item2attributes.json").write_text(json.dumps(attributes))
    with caplog.at_level("INFO"):
        toys = Toys(source=str(tmp_path), candidates=0, core=None)
        schema = prepare(toys, tmp_path / "out", name="toys")
    assert "1 items, such as 1, have every attribute; they get no edges" in caplog.text
    assert schema.attributes == {"attribute": 2}
    assert len(History.load(tmp_path / "out", "attributes").items) == 2
