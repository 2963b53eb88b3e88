"""Checks for columns that training cannot learn from: constant labels, constant or far-off dense columns."""

from __future__ import annotations

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import LABEL, SPLIT, Columns
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.schema import SPLITS, WEIGHT

_FAR = 100  # standard deviations from the mean of training
_FARTHER = 10  # times the distance of the farthest value of training


def check_labels(workspace: Workspace, columns: Columns) -> None:
    """Warn about splits whose labels are all equal."""
    _check_label(workspace, columns, LABEL, columns.label or columns.rating)
    for name in columns.further_labels:
        _check_label(workspace, columns, name, name)


def _check_label(workspace: Workspace, columns: Columns, name: str, column: str | None) -> None:
    label_of = quoted(name)
    for split, label, other in workspace.query(
        f"SELECT {SPLIT}, min({label_of}), max({label_of}) FROM rows GROUP BY {SPLIT} ORDER BY {SPLIT}"
    ):
        if label != other:
            continue
        found = f"column {column!r}: all labels of the {SPLITS[split]} split are {label:.0f}"
        if split != 0:
            workspace.warn(f"{found}: metrics such as AUC are undefined on it")
            continue
        remedy = "Correct the labels, or, where every row is a positive, set data.label=null (implicit feedback)"
        if columns.rating is not None:
            relation = "No rating reaches" if label == 0 else "Every rating reaches"
            remedy = f"{relation} data.threshold = {columns.threshold:g}: set another"
        workspace.warn(f"{found}; a model has nothing to learn. {remedy}")


def check_weights(workspace: Workspace, columns: Columns) -> None:
    """Refuse weights that are all 0 in training; warn about another split in which they are.

    Raises:
        DataError: No row of training has a weight above 0.
    """
    if columns.weight is None:
        return
    for split, heaviest in workspace.query(
        f"SELECT {SPLIT}, max({WEIGHT}) FROM rows GROUP BY {SPLIT} ORDER BY {SPLIT}"
    ):
        if heaviest > 0:
            continue
        found = f"column {columns.weight!r}: all weights of the {SPLITS[split]} split are 0"
        if split == 0:
            raise DataError(
                f"{found}, so that no row counts in the loss. Correct the weights, or set data.weight=null, where every"
                " row has the weight 1"
            )
        workspace.warn(f"{found}: metrics with evaluation.weighted=true are undefined on it")


def check_dense(workspace: Workspace, columns: Columns) -> None:
    """Refuse dense columns that are constant only in training; warn about values far outside those of training.

    Raises:
        DataError: A column is constant in training but has another value in validation or test.
    """
    for name in columns.dense:
        column = quoted(name)
        [(lowest, highest, mean, deviation)] = workspace.query(
            "SELECT min(x), max(x), avg(x), stddev_pop(x)"
            f" FROM (SELECT {column}::DOUBLE AS x FROM rows WHERE {SPLIT} = 0)"
        )
        if lowest is None:
            raise DataError(f"column {name!r}: no row of the training split has a number. Leave it out of data.dense")
        farthest = workspace.query(
            f"SELECT {column}, {SPLIT} FROM rows WHERE {SPLIT} > 0 AND {column} IS NOT NULL"
            f" ORDER BY abs({column}::DOUBLE - {mean!r}) DESC LIMIT 1"
        )
        [(value, split)] = farthest or [(lowest, 0)]
        if lowest == highest:
            if value != lowest:
                raise DataError(
                    f"column {name!r}: all values of the training split are {lowest:g}, but {SPLITS[split]}"
                    f" has {value:g}, which no model can learn to use. Leave it out of data.dense, or change data.split"
                )
            workspace.warn(f"column {name!r}: all values are {lowest:g}; a model cannot learn from it")
        elif abs(value - mean) > max(_FAR * deviation, _FARTHER * max(highest - mean, mean - lowest)):
            workspace.warn(
                f"column {name!r}: {SPLITS[split]} has the value {value:g}, {abs(value - mean) / deviation:.0f}"
                f" standard deviations from the mean of training, whose values are between {lowest:g} and {highest:g}"
            )
