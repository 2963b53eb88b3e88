"""Pictures of logs: complete ones, older ones, and those of unfinished runs."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from cove_dist.errors import ConfigError
from cove_dist.report.curves import draw_losses, draw_speed, draw_usage, draw_validation
from cove_dist.report.drawing import Picture
from cove_dist.report.run_folder import Run, load_run, series
from tests.component.report.runs import log, write_run


def run_of(folder: Path, records: list[dict], *overrides: str, quantized: bool = True) -> Run:
    return load_run(write_run(folder / "run", folder / "data", records, *overrides, quantized=quantized))


def pixels(picture: Picture) -> tuple[int, int]:
    """Width and height, from the head of a PNG file (PNG specification, section 11.2.1)."""
    head = picture.path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:])


def test_a_whole_log_gives_every_picture(tmp_path: Path) -> None:
    run = run_of(tmp_path, log())
    for draw in (draw_losses, draw_validation, draw_usage, draw_speed):
        [picture] = draw(run, tmp_path)
        width, height = pixels(picture)
        assert 600 < width < 2000
        assert 200 < height < 1500
    assert draw_validation(run, tmp_path)[0].caption.endswith("The mark is epoch 2, step 6, the best by AUC.")


def test_a_log_without_dead_codes_has_one_row_of_panels(tmp_path: Path) -> None:
    [whole] = draw_usage(run_of(tmp_path, log()), tmp_path)
    height = pixels(whole)[1]
    (tmp_path / "older").mkdir()
    [older] = draw_usage(run_of(tmp_path / "older", log(dead=False)), tmp_path / "older")
    assert pixels(older)[1] == height // 2
    assert "Dead" in whole.caption
    assert "Dead" not in older.caption


def test_a_run_without_quantizers_has_no_picture_of_codes(tmp_path: Path) -> None:
    run = run_of(tmp_path, log(quantized=False), quantized=False)
    assert run.model == "DeepFM"
    assert draw_usage(run, tmp_path) == []
    assert len(draw_losses(run, tmp_path)) == len(draw_speed(run, tmp_path)) == 1


def test_a_run_in_its_first_epoch_has_no_validation(tmp_path: Path) -> None:
    run = run_of(tmp_path, log()[:2])
    assert draw_validation(run, tmp_path) == []
    assert len(draw_losses(run, tmp_path)) == 1


def test_a_log_of_validation_only(tmp_path: Path) -> None:
    run = run_of(tmp_path, [record for record in log() if record["kind"] == "validation"])
    assert draw_losses(run, tmp_path) == draw_usage(run, tmp_path) == draw_speed(run, tmp_path) == []
    assert len(draw_validation(run, tmp_path)) == 1


@pytest.mark.parametrize(("metric", "best"), [("auc", 2), ("logloss", 4)])
def test_the_best_epoch_is_the_earliest_among_equals(tmp_path: Path, metric: str, best: int) -> None:
    values = [math.nan, 0.7, 0.7, 0.5, 0.5]
    records = [{"kind": "validation", "step": e, "epoch": e, metric: value} for e, value in enumerate(values, start=1)]
    run = run_of(tmp_path, records, f"trainer.early_stopping.metric={metric}")
    assert run.best_validation()["epoch"] == best


def test_a_metric_that_was_never_a_number_has_no_best_epoch(tmp_path: Path) -> None:
    run = run_of(tmp_path, [{"kind": "validation", "step": 1, "epoch": 1, "auc": math.nan, "logloss": 0.6}])
    assert run.best_validation() is None
    [picture] = draw_validation(run, tmp_path)
    assert "best" not in picture.caption


def test_series_of_records_that_have_the_figure() -> None:
    records = [{"step": 1, "a": 5.0}, {"step": 2}, {"step": 3, "a": 7.0}]
    x, y = series(records, "step", "a")
    assert (x.tolist(), y.tolist()) == ([1, 3], [5, 7])
    assert all(len(values) == 0 and values.dtype == np.float64 for values in series(records, "step", "b"))


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run = .*: no config.yaml there"):
        load_run(tmp_path)


@pytest.mark.parametrize("present", [True, False])
def test_a_run_without_a_log(tmp_path: Path, present: bool) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", [])
    if not present:
        (run / "log.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"log.jsonl: no records; train first"):
        load_run(run)


def test_every_metric_has_a_panel_in_rows_of_four(tmp_path: Path) -> None:
    def drawn(*names: str) -> tuple[int, int]:
        folder = tmp_path / str(len(names))
        folder.mkdir()
        records = [{"kind": "validation", "step": e, "epoch": e} | dict.fromkeys(names, 0.5) for e in (1, 2)]
        [picture] = draw_validation(run_of(folder, records), folder)
        return pixels(picture)

    width, height = drawn("auc", "logloss", "gauc", "ndcg@1")
    assert drawn("auc", "logloss", "gauc", "ndcg@1", "ndcg@5", "ndcg@10", "hr@5") == (width, 2 * height)
    assert drawn("auc", "gauc") == (width // 2, height)
