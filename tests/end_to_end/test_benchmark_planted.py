"""The benchmark of planted categories scores what was trained, repeats no finished cell, and sums up rightly."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import adjusted_mutual_info_score

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.tasks.configuration import load_saved_run
from data_pipeline.schema import Schema

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark, tables = map(importlib.import_module, ("planted", "planted_tables"))
sys.path.remove(BENCHMARKS)

PLANTED = benchmark.Planted(users=40, rows=1200, tree=(6, 3, 2))
TINY = (
    "model.hidden_units=[8]",
    "embeddings.dim=8",
    "trainer.epochs=1",
    "trainer.batch_size=240",
    "trainer.log_every=2",
)


def measured(folder: Path, settings: tuple[str, ...], overrides: tuple[str, ...] = TINY) -> list:
    return list(benchmark.measured(PLANTED, settings, [3], overrides, folder, folder / "results.jsonl"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, measured(folder, (benchmark.BASE, benchmark.DEFAULT))


def test_scores_are_of_the_exported_codes(trained: tuple[Path, list]) -> None:
    folder, (_, cove) = trained
    data = benchmark.Planted.prepared(PLANTED, folder, 3)
    for entity in ("user", "item"):
        truth = pq.read_table(data / "categories" / f"{entity}_id.parquet").to_pylist()
        codes = {row["original_id"]: row for row in pq.read_table(folder / "COVE_3/codes" / entity).to_pylist()}
        pairs = [(row, codes[row["original_id"]]) for row in truth]
        for level in (1, 2, 3):
            known = [(c[f"category_{level}"], k[f"code_{level}"]) for c, k in pairs if k["code_1"] is not None]
            expected = adjusted_mutual_info_score(*zip(*known, strict=True))
            assert cove["scores"]["codes"][entity]["ami"][level - 1] == pytest.approx(expected)


def test_embeddings_of_the_checkpoint_choose_the_exported_codes(trained: tuple[Path, list]) -> None:
    folder, _ = trained
    config, run = load_saved_run(str(folder / "COVE_3"))
    embeddings = benchmark.load_embeddings(config, Schema.load(config.data.path), find_checkpoint(run, config, "best"))
    codebooks = load_file(run / "codes" / "codebooks.safetensors")
    for entity, vectors in embeddings.items():
        codes = pq.read_table(run / "codes" / entity)["code_1"].drop_null().to_numpy()
        distances = ((vectors[:, None].astype(float) - codebooks[f"{entity}.1"]) ** 2).sum(axis=2)
        assert (distances.argmin(axis=1) == codes).all()


def test_contestants(trained: tuple[Path, list]) -> None:
    """The categories of the finest level have a hidden vector each, which k-means must find; chance must not."""
    _, (base, cove) = trained
    assert (set(base["scores"]), set(cove["scores"])) == ({"kmeans", "random", "hidden"}, {"codes", "kmeans"})
    for entity in ("user", "item"):
        assert base["scores"]["hidden"][entity]["ami"][0] == pytest.approx(1)
        assert abs(base["scores"]["random"][entity]["ami"][0]) < 0.5
        assert 1 <= cove["scores"]["codes"][entity]["perplexity"][0] <= 6
    labels = [one.label for one in tables.contestants([base, cove], benchmark.BASE, benchmark.DEFAULT)]
    assert len(labels) == len(set(labels)) == 5


def test_finished_cells_are_not_repeated(trained: tuple[Path, list], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, records = trained
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    repeated = []
    monkeypatch.setattr(benchmark, "measure", lambda planted, wanted, folder: repeated.append(wanted) or records[0])
    assert measured(folder, (benchmark.BASE, benchmark.DEFAULT)) == records
    assert not repeated
    measured(folder, (benchmark.BASE,), (*TINY, "model.dropout=0"))
    assert len(repeated) == 1


def test_cluster_is_a_cascade() -> None:
    random = np.random.default_rng(0)
    fine = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [90, 0], [90, 1]], dtype=float)
    truth = np.arange(6).repeat(10)
    codes = benchmark.cluster(fine[truth] + random.normal(scale=0.01, size=(60, 2)), PLANTED, seed=0)
    for level, size in enumerate((1, 2, 4)):  # the last centres: {0, 9} and {90}
        assert adjusted_mutual_info_score(truth // size, codes[:, level]) == pytest.approx(1)


def record(setting: str, seed: int, ami: float, auc: float = 0.5) -> dict:
    scores = {
        entity: {"ami": [ami + shift] * 2, "perplexity": [3.0, 2.0]}
        for entity, shift in (("user", -0.1), ("item", 0.1))
    }
    return {"setting": setting, "seed": seed, "auc": auc, "data": {"tree": [3, 2]}, "scores": {"codes": scores}}


def test_differences_are_paired_by_seed() -> None:
    records = [record("COVE", seed, 0.1 * seed) for seed in range(4)]
    records += [record("better", seed, 0.1 * seed + gain) for seed, gain in ((3, 0.21), (0, 0.2), (2, 0.19), (9, 5))]
    better = tables.Contestant("better", "better", "codes")
    found = tables.differences(records, better, "COVE", lambda r, who: tables.mean_ami(r, who, level=1))
    assert sorted(found) == pytest.approx([0.19, 0.2, 0.21])
    assert tables.verdict(found) == "+"
    assert tables.verdict([-x for x in found]) == "-"
    assert tables.verdict([0.2, -0.1, 0.3]) == tables.verdict([0.2]) == " "
    # Student's quantile for two degrees of freedom is 4.303: the interval of 1, 1, 4 reaches below 0
    assert tables.verdict([1, 1, 4]) == " "
