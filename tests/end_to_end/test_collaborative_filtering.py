"""Implicit feedback by the programs: prepare, train under torchrun, evaluate, recommend; with and without COVE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from cove_dist.errors import ConfigError
from cove_dist.inference.codes import export_codes
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.inference.recommend import recommend
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import SPLITS, Schema
from tests.configurations import COVE
from tests.end_to_end.programs import metrics_of, succeed
from tests.interactions import CANDIDATES, SMALL_RUN, USERS, write_raw

RUNS = {
    "bprmf": ("model=bprmf", "embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise"),
    "cove_lightgcn": ("model=lightgcn", *COVE),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cf")
    source = write_raw(folder / "raw")
    out = succeed(
        "prepare", "data=toys", f"source={source}", f"output={folder / 'data'}", f"candidates={CANDIDATES}", "core=2"
    )
    assert "published: 19,412" in out
    return folder / "data"


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    succeed("train", *SMALL_RUN, f"data.path={data}", f"output={folder}", *RUNS[request.param], ranks=2)
    return folder


def pairs(data: Path, *splits: str) -> set[tuple[int, int]]:
    """User and item by their original ids."""
    schema = Schema.load(data)
    users, items = (
        pq.read_table(data / "ids" / f"{name}.parquet")["original_id"].to_pylist() for name in ("user_id", "item_id")
    )
    tables = [pq.read_table(data / file) for split in splits for file in schema.splits[split].files]
    rows = [row for table in tables for row in table.to_pylist()]
    return {(users[row["user_id"]], items[row["item_id"]]) for row in rows}


def test_metrics_do_not_depend_on_the_number_of_ranks(run: Path, data: Path) -> None:
    results = []
    for ranks in (None, 2):
        succeed("evaluate", f"run={run}", "device=cpu", ranks=ranks)
        results.append(metrics_of(run))
    assert results[1] == pytest.approx(results[0], abs=1e-6)
    assert results[0]["users"] == results[0]["full_users"] == len(pairs(data, "test"))
    assert {"ndcg@10", "mrr@5", "hr@3", "recall@10", "full_coverage@10", "ndcg@10/item_q4"} <= set(results[0])


def test_recommendations_leave_out_what_the_user_has_and_agree_with_the_metrics(run: Path, data: Path) -> None:
    succeed("recommend", f"run={run}", "device=cpu", "k=10", ranks=2)
    table = pq.read_table(run / "recommendations").to_pylist()
    listed = {(row["user"], row["item"]) for row in table}
    assert len(listed) == len(table) == USERS * 10
    assert not listed & pairs(data, *SPLITS)
    for user in {row["user"] for row in table}:
        scores = [row["score"] for row in table if row["user"] == user]
        assert [row["rank"] for row in table if row["user"] == user] == list(range(1, 11))
        assert scores == sorted(scores, reverse=True)


def test_an_index_gives_the_same_lists_to_the_users_asked(run: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("who\n117\n103\n")
    for name, more in (("exact", ["users=[103,117]"]), ("index", [f"users={tmp_path / 'users.csv'}", "faiss=true"])):
        succeed("recommend", f"run={run}", "device=cpu", "k=7", f"output={tmp_path / name}", *more)
    exact, index = (pq.read_table(tmp_path / name) for name in ("exact", "index"))
    assert exact.select(["user", "rank", "item"]).equals(index.select(["user", "rank", "item"]))
    np.testing.assert_allclose(exact["score"], index["score"], atol=1e-6)
    assert set(exact["user"].to_pylist()) == {103, 117}


def test_codes_of_all_ids_are_those_of_the_nearest_rows_of_the_codebooks(run: Path, data: Path) -> None:
    if "cove" not in str(run):
        with pytest.raises(ConfigError, match="has no quantizers"):
            export_codes([f"run={run}", "device=cpu"])
        return
    folder = export_codes([f"run={run}", "device=cpu", "batch_size=17"])
    schema, config = Schema.load(data), load_run_config([*SMALL_RUN, *RUNS["cove_lightgcn"]])[0]
    codebooks = load_file(folder / "codebooks.safetensors")
    for entity, levels in config.quantizer.levels().items():
        table = pq.read_table(folder / entity)
        assert len(table) == schema.entity(entity).num_ids
        codes = table["code_1"].drop_null().to_numpy()
        assert len(codes) == schema.entity(entity).num_seen
        fine, coarse = (codebooks[f"{entity}.{level}"].numpy() for level in (1, 2))
        assert len(fine) == levels[0]
        distances = ((fine[codes][:, None] - coarse) ** 2).sum(axis=2)
        np.testing.assert_array_equal(table["code_2"].drop_null(), distances.argmin(axis=1))


def test_wrong_requests_are_refused(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"users: 1 of 2 ids were not in the training split, or are too rare there, such as '9'"
    ):
        recommend([f"run={run}", "users=[103,9]"])
    with pytest.raises(ConfigError, match=r"users = nobody.csv: no such file, and neither all nor a list"):
        recommend([f"run={run}", "users=nobody.csv"])
    with pytest.raises(ConfigError, match=r"save_predictions = true: for CTR models"):
        evaluate_run([f"run={run}", "save_predictions=true"])


def test_models_and_data_that_do_not_fit_are_refused(prepared: Path, data: Path) -> None:
    config, _ = load_run_config([*SMALL_RUN, f"data.path={prepared}", "model=bprmf"])
    for refuse in (
        task_of(config).build_model,
        task_of(config).check_data,
    ):  # by the latter before all that follows from it
        with pytest.raises(ConfigError, match=r"BPRMF: learns from implicit feedback, and synthetic has labels"):
            refuse(config, Schema.load(prepared))
    with pytest.raises(ConfigError, match=r"metric = auc: allowed are ndcg@1, .*full_recall@10"):
        load_run_config([*SMALL_RUN, f"data.path={data}", "model=bprmf", "trainer.early_stopping.metric=auc"])
