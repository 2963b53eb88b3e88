"""Category negatives on real ranks: the codes and the draws of one process, and the same after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans

from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.cf.model import CFTaskModel
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.training.build import build
from cove_dist.training.program import train
from data_pipeline.history import History
from data_pipeline.schema import Schema
from tests.distributed.ranks import run_ranks
from tests.interactions import SMALL_RUN, prepare_small

SHARE = ("negatives.category_share=0.6", "negatives.count=3", "embeddings.init_std=0.3")
ROW_WISE = ("embeddings.sharding.default=row_wise", "embeddings.optimizer.name=sgd")
SOURCES = {
    "kmeans": ("model=bprmf", *SHARE, *ROW_WISE, "negatives.category_count=5"),
    "kmeans_lightgcn": ("model=lightgcn", *SHARE, "negatives.category_count=5"),
    "quantizer": ("model=neumf", *SHARE, *ROW_WISE, "quantizer=negatives", "negatives.category_codes=quantizer"),
    "random": ("model=bprmf", *SHARE, "negatives.category_codes=random"),
    "data": ("model=bprmf", *SHARE, "negatives.category_codes=data", "negatives.category_count=4"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_small(tmp_path_factory.mktemp("cf"))


def second_epoch(data: Path) -> dict[str, dict[str, Any]]:
    """Return for every source the codes, and this rank's rows of the second epoch with their negatives."""
    with process_group("cpu") as context:
        return {name: drawn(context, [*SMALL_RUN, f"data.path={data}", *SOURCES[name]]) for name in SOURCES}


def drawn(context: DistributedContext, overrides: list[str]) -> dict[str, Any]:
    config, _ = load_run_config(overrides)
    schema, task = Schema.load(config.data.path), task_of(config)
    loader = task.build_training_loader(config, schema, context)
    model = build(config, schema, context, 10).model.module
    assert isinstance(model, CFTaskModel)
    hook = task.build_epoch_hook(config, schema, context, model, loader)
    assert hook is not None
    hook.start_epoch(0)
    assert not hook.state_dict()["known"]
    hook.start_epoch(1)
    loader.set_epoch(1)
    rows = []
    for batch in loader:
        negatives = batch.ids["negatives"].values().view(len(batch), 3)
        rows.append([*zip(batch.users.tolist(), batch.items.tolist(), negatives.tolist(), strict=True)])
    return {"codes": hook.state_dict()["codes"].tolist(), "rows": rows}


@pytest.fixture(scope="module")
def one(data: Path) -> dict[str, dict[str, Any]]:
    return run_ranks(1, second_epoch, data)[0]


@pytest.mark.parametrize("world_size", [2, 4])
def test_codes_and_negatives_are_those_of_one_process(data: Path, one: dict[str, Any], world_size: int) -> None:
    ranks = run_ranks(world_size, second_epoch, data)
    for name in SOURCES:
        assert {tuple(rank[name]["codes"]) for rank in ranks} == {tuple(one[name]["codes"])}
        steps = zip(*(rank[name]["rows"] for rank in ranks), strict=True)
        assert [[row for part in step for row in part] for step in steps] == one[name]["rows"]


@pytest.mark.parametrize("name", SOURCES)
def test_negatives_are_new_to_the_user_and_lean_to_the_category(name: str, data: Path, one: dict[str, Any]) -> None:
    history, codes = History.load(data, "train"), np.array(one[name]["codes"])
    rows = [row for step in one[name]["rows"] for row in step]
    seen = {user: set(history.items[slice(*history.offsets[user : user + 2])].tolist()) for user, *_ in rows}
    assert all(seen[user].isdisjoint(negatives) for user, _, negatives in rows)
    same = np.mean([codes[negative] == codes[item] for _, item, negatives in rows for negative in negatives])
    share = np.square(np.bincount(codes) / len(codes)).sum()  # of uniform pairs
    assert len(set(codes.tolist())) > 1
    assert same > share + 0.15


def test_categories_are_as_tight_as_those_of_scikit_learn(data: Path) -> None:
    with process_group("cpu") as context:
        overrides = [*SMALL_RUN, f"data.path={data}", *SOURCES["kmeans"]]
        config, _ = load_run_config(overrides)
        schema = Schema.load(config.data.path)
        codes = np.array(drawn(context, overrides)["codes"])
        tables = build(config, schema, context, 10).model.module.tables.state_dict()
        [rows] = [part.tensor.numpy() for key, w in tables.items() if "item" in key for part in w.local_shards()]
    rows = rows[: len(codes)]
    inertia = sum(np.square(rows[codes == code] - rows[codes == code].mean(0)).sum() for code in set(codes.tolist()))
    reference = KMeans(5, n_init=10, random_state=0).fit(rows).inertia_
    assert inertia < 1.1 * reference


def losses(path: Path) -> dict[int, float]:
    records = map(json.loads, (path / "log.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def test_an_epoch_that_is_resumed_draws_as_it_would_have(data: Path, tmp_path: Path) -> None:
    """With codes of tables that have moved on since the epoch began."""

    def losses_of(output: str, *overrides: str) -> dict[int, float]:
        settings = [*SMALL_RUN, f"data.path={data}", *SOURCES["kmeans"], f"output={tmp_path / output}", *overrides]
        train([*settings, "trainer.log_every=1", "embeddings.optimizer.learning_rate=1"])
        return losses(tmp_path / output)

    whole = losses_of("whole")
    steps = max(whole) // 2
    cut = losses_of("cut", f"trainer.max_steps={steps + steps // 2}")
    resumed = losses_of("cut", "trainer.checkpoint.resume=auto")
    assert max(cut) < max(whole) and resumed == whole
    uniform = losses_of("uniform", "negatives.category_share=0", "negatives.category_count=8")
    assert {step: uniform[step] == whole[step] for step in (steps, steps + 1)} == {steps: True, steps + 1: False}
