"""Names and directions of metrics, declared once."""

from __future__ import annotations

import pytest
import torch
from torchmetrics import Metric

from cove_dist.errors import ConfigError
from cove_dist.evaluation import BinnedAUC, Coverage, CTRMetrics, ListCompletion, LogLoss, TopK, UserRanking
from cove_dist.evaluation.declarations import (
    NDCG,
    Family,
    check_metrics,
    declares,
    direction,
    families_of,
    higher_is_better,
    is_metric,
    names_of,
    title,
)
from cove_dist.evaluation.positions import Positions
from cove_dist.tasks.cf.config import CFEvaluationConfig
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.config import CTREvaluationConfig
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.sequential.config import SequentialEvaluationConfig
from data_pipeline.schema import TARGET, Categorical, Schema, Split

KS = (2, 3)


@pytest.mark.parametrize("metric", [BinnedAUC, LogLoss, UserRanking, TopK, Coverage, ListCompletion])
def test_the_declared_direction_is_that_of_the_class(metric: type[Metric]) -> None:
    assert {family.higher_is_better for family in families_of(metric)} == {metric.higher_is_better}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("auc", "max"), ("logloss", "min"), ("gauc", "max"), ("ndcg@10", "max"), ("full_ndcg@5", "max")),
        *(("logloss/user_q1", "min"), ("auc/item_never", "max"), ("paper_hr@5", "max"), ("full_coverage@5", "max")),
        *(("recall@5", "max"), ("mrr@10", "max"), ("mrr", "max"), ("hr@1/item_q4", "max")),
    ],
)
def test_directions_of_full_names(name: str, expected: str) -> None:
    assert direction(name) == expected
    assert higher_is_better(name) == (expected == "max")


@pytest.mark.parametrize(
    "name",
    [
        "users",
        "samples",
        "auc_error",
        "lists",
        "full_users",
        "ids/user_q1",
        "ndcg",
        "auc@5",
        "ndgc@5",
        "step",
        "ndcg@x",
        "ndcg@",
    ],
)
def test_counts_bounds_and_misspelt_names_are_no_metrics(name: str) -> None:
    assert not is_metric(name)
    with pytest.raises(ConfigError, match=f"metrics = {name}: no such metric;.* allowed are auc, .*coverage@K"):
        check_metrics("metrics", [name])


def test_a_near_name_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean ndcg@K"):
        check_metrics("metrics", ["auc", "ndgc@5"])


def test_titles_say_over_what() -> None:
    assert title("full_ndcg@10") == "NDCG@10, all items"
    assert title("logloss/user_q1") == "log loss, user q1"
    assert title("users") == "users"


def test_a_new_family_is_known_everywhere_by_its_declaration() -> None:
    @declares(NDCG, Family("regret_of_test", "regret", "hit_rate_at", higher_is_better=False))
    class Regret(Metric):
        pass

    assert names_of(Regret, (10,), KS) == ["ndcg@10", "regret_of_test@2", "regret_of_test@3"]
    assert direction("full_regret_of_test@3/user_q2") == "min"
    with pytest.raises(ValueError, match="regret_of_test@K: declared as"):
        declares(Family("regret_of_test", "regret", "hit_rate_at"))


def test_what_evaluators_compute_is_what_is_declared() -> None:
    ctr = CTRMetrics(KS, KS)
    ctr.update(torch.tensor([0.1, 0.2]), torch.tensor([0.0, 1.0]), torch.tensor([0, 0]))
    assert [name for name in ctr.compute() if is_metric(name)] == CTREvaluationConfig(KS, KS).metric_names()
    top_k, coverage = TopK(KS, KS), Coverage(9, KS)
    top_k.update(Positions.of_mask(torch.eye(3)[:1] > 0, 3), torch.tensor([1]))
    coverage.update(torch.tensor([[0, 1, 2]]))
    computed = [*top_k.compute(), *coverage.compute()]
    of_all = CFEvaluationConfig(KS, KS, rank_validation=("sampled",), rank_test=("full",))
    named = [name for name in computed if is_metric(name)]
    assert [f"full_{name}" for name in named] == of_all.metric_names("test")
    assert of_all.metric_names("validation") == [name for name in named if "coverage" not in name]


def next_items(longest: int) -> Schema:
    """Data whose longest target half has so many items."""
    item = Categorical(TARGET, 9, 8, "item", sequence=True, max_length=longest)
    return Schema(name="toys_next", label=None, categorical=(item,), dense=(), splits={})


@pytest.mark.parametrize(("longest", "left_out"), [(1, ("paper", "recall")), (2, ("hr", "paper_ndcg@3", "paper_hr@3"))])
def test_metrics_that_no_list_of_the_data_can_have_are_not_computed(longest: int, left_out: tuple[str, ...]) -> None:
    metrics = ListCompletion(KS, KS, 9, longest)
    metrics.update(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 5][:longest]]))
    computed = metrics.compute()
    assert [name for name in computed if is_metric(name)] == SequentialEvaluationConfig(KS, KS).metric_names(
        next_items(longest)
    )
    assert not any(name.startswith(left_out) for name in computed)
    assert not any(value.isnan() for value in computed.values())
    hits = computed["hr@2"] if longest == 1 else 2 * computed["recall@2"]
    assert hits == 1


def test_early_stopping_may_watch_what_the_data_have() -> None:
    lists = ["model=sasrec", "trainer=sequential"]
    config, _ = load_run_config(lists)  # the metric of trainer=sequential is defined for any lists
    task_of(config).check_data(config, next_items(1))
    task_of(config).check_data(config, next_items(12))
    config, _ = load_run_config([*lists, "trainer.early_stopping.metric=paper_ndcg@5"])
    task_of(config).check_data(config, next_items(12))
    with pytest.raises(ConfigError, match=r"= paper_ndcg@5: allowed are ndcg@1, .* hr@5 \(the data toys_next"):
        task_of(config).check_data(config, next_items(1))


@pytest.mark.parametrize(
    "given",
    [[], ["rank_test=[full]"], ["rank_validation=[full]"], ["rank_validation=[full,sampled]", "rank_test=[full]"]],
)
def test_the_refusal_of_missing_candidates_names_all_settings_that_do_without(given: list[str]) -> None:
    splits = dict.fromkeys(("validation", "test"), Split(4, ("part.parquet",)))
    ids = (Categorical("user_id", 9, 9, "user"), Categorical("item_id", 9, 9, "item"))
    schema = Schema(name="toys", label="label", categorical=ids, dense=(), splits=splits, implicit=True)
    metric = ["trainer.early_stopping.metric=full_ndcg@10"] if "rank_validation=[full]" in given else []
    overrides = ["model=bprmf", *metric, *(f"evaluation.{each}" for each in given)]
    config, _ = load_run_config(overrides)
    with pytest.raises(ConfigError, match=r"toys was prepared without candidates; .*candidates=99") as caught:
        task_of(config).check_data(config, schema)
    instead = str(caught.value).partition("rank all items: ")[2].split()
    config, _ = load_run_config([*(each for each in overrides if each.split("=")[0] not in str(instead)), *instead])
    task_of(config).check_data(config, schema)
    assert config.trainer.early_stopping.metric == "full_ndcg@10"


@pytest.mark.parametrize(
    ("metric", "mode", "better", "allowed"), [("logloss", "max", "smaller", "min"), ("auc", "min", "greater", "max")]
)
def test_a_mode_that_contradicts_the_metric_is_refused(metric: str, mode: str, better: str, allowed: str) -> None:
    given = [f"trainer.early_stopping.metric={metric}", f"trainer.early_stopping.mode={mode}"]
    with pytest.raises(ConfigError, match=f"mode = {mode}: a {better} {metric} is better; allowed: null, {allowed}"):
        load_run_config(given)
    for agreeing in ("null", allowed):
        load_run_config([given[0], f"trainer.early_stopping.mode={agreeing}"])
