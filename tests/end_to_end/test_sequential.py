"""Sequential models from raw playlists to metrics, by the launch programs, on two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.schema import Schema
from tests.end_to_end.programs import launch, metrics_of, succeed
from tests.unit.data.playlist_files import raw_playlists, write_release

SMALL = (
    "trainer=sequential",
    "embeddings.dim=8",
    "model.num_layers=1",
    "model.num_heads=2",
    "trainer.device=cpu",
    "trainer.batch_size=32",
    "trainer.epochs=2",
    "trainer.log_every=1",
    "trainer.early_stopping.metric=paper_ndcg@5",
    "evaluation.ndcg_at=[3,5]",
    "evaluation.hit_rate_at=[3,5]",
)
ROW_WISE = ("embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise")
COVE = ("quantizer=cove_items", "quantizer.item_levels=[12,4]", "quantizer.omega_c=1.0")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    source = write_release(folder / "raw", raw_playlists())
    rules = ("min_length=5", "max_length=16")
    shown = succeed("prepare", "data=aotm", f"source={source}", *rules, f"output={folder / 'prepared'}")
    assert "published: 12,940" in shown
    return folder / "prepared"


@pytest.mark.parametrize(
    ("model", "more"),
    [("sasrec", ROW_WISE), ("bert4rec", COVE), ("fans", (*ROW_WISE, *COVE, "sequential.curriculum_steps=6"))],
)
def test_prepare_train_evaluate(prepared: Path, tmp_path: Path, model: str, more: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    data = ("data=aotm", f"data.path={prepared}")
    succeed("train", *data, f"model={model}", *SMALL, *more, f"output={run}", ranks=2)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    assert all(record["loss"] > 0 for record in steps)
    assert ("quantization_item" in steps[0]) == ("classification" in steps[0]) == (more[-1] in COVE or len(more) > 4)
    shown = succeed("evaluate", f"run={run}", ranks=2)
    assert "paper_hr@5" in shown
    metrics = metrics_of(run)
    assert metrics["lists"] == Schema.load(prepared).splits["test"].rows
    assert 0 <= metrics["recall@3"] <= metrics["recall@5"] <= 1  # the paper's HR@3 and HR@5 are of different lists
    alone = metrics_of(run)
    succeed("evaluate", f"run={run}")
    if "quantization_item" in steps[0]:
        succeed("export_codes", f"run={run}", ranks=2)
        exported = json.loads((run / "codes" / "codes.json").read_text())["entities"]
        assert exported["item"]["ids"] == Schema.load(prepared).entity("item").num_ids
    assert metrics_of(run) == pytest.approx(alone, abs=1e-6)


def test_the_popularity_baseline_is_compared_with_runs(prepared: Path, tmp_path: Path) -> None:
    floor = tmp_path / "floor"
    cut = ("ndcg_at=[3,5]", "hit_rate_at=[3,5]")
    succeed("popularity", f"data={prepared}", *cut, f"output={floor}")
    metrics = metrics_of(floor)
    assert metrics["paper_hr@5"] == pytest.approx(plain_hit_rate(prepared, 5))
    assert "Popularity" in succeed("compare", f"runs=[{floor}]")


def plain_hit_rate(prepared: Path, k: int) -> float:
    def lists(split: str) -> list[dict]:
        files = Schema.load(prepared).splits[split].files
        return [row for file in files for row in pq.read_table(prepared / file).to_pylist()]

    counts: dict[int, int] = {}
    for row in lists("train"):
        for item in row["input"] + row["target"]:
            counts[item] = counts.get(item, 0) + 1
    top = sorted(counts, key=lambda item: (-counts[item], item))[:k]
    hits = [bool(set(top) & set(row["target"])) for row in lists("test") if len(row["target"]) >= k]
    return sum(hits) / len(hits)


def test_what_does_not_fit_is_refused(prepared: Path, tmp_path: Path) -> None:
    data = ("data=aotm", f"data.path={prepared}", f"output={tmp_path / 'run'}")
    for overrides, message in (
        ((*data, "model=deepfm", "quantizer=cove", "quantizer.omega_c=0.5"), "quantizer.omega_c = 0.5"),
        ((*data, "model=sasrec", *SMALL, "quantizer=cove"), "quantizer.user_levels = [100, 10]"),
        (
            (*data, "model=sasrec", *SMALL, "quantizer.omega_c=1.0"),
            "there are no codes to classify",
        ),
        ((*data, "model=sasrec", *SMALL, "trainer.early_stopping.metric=auc"), "allowed are paper_ndcg@3"),
    ):
        done = launch("train", *overrides)
        assert done.returncode == 2
        assert message in done.stderr
