"""Whether items of a row's input are ranked for it: by default of the data, in every model and in the baseline."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError
from cove_dist.evaluation import ListCompletion
from cove_dist.evaluation.sequential import NOTHING
from cove_dist.inference.popularity import evaluate_popularity
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.sequential.config import SequentialEvaluationConfig
from cove_dist.tasks.sequential.popularity import popular_positions
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import INPUT, TARGET, Categorical, Schema
from tests.component.sequential.runs import small_run
from tests.unit.evaluation.ties import expected


def lists_of(longest: int) -> Schema:
    halves = ((INPUT, 20), (TARGET, longest))
    columns = tuple(Categorical(name, 9, 8, "item", sequence=True, max_length=most) for name, most in halves)
    return Schema(name="x", label=None, categorical=columns, dense=(), splits={})


@pytest.mark.parametrize(
    ("longest", "setting", "excluded"),
    [(1, None, True), (2, None, False), (1, False, False), (2, True, True), (1, True, True), (12, False, False)],
)
def test_the_default_follows_from_the_data(longest: int, setting: bool | None, excluded: bool) -> None:
    protocol = SequentialEvaluationConfig((5,), (5,), exclude_seen=setting).protocol(lists_of(longest))
    assert protocol.exclude_seen == excluded
    words = "items of the input are left out" if excluded else "items of the input may be ranked again"
    assert protocol.words == words


@pytest.mark.parametrize("model", ["Recurrent", "Masked", "Parallel"])
@pytest.mark.parametrize("exclude_seen", [True, None])
def test_an_evaluation_ranks_items_of_the_input_only_where_it_may(
    prepared_lists: Path, monkeypatch: pytest.MonkeyPatch, model: str, exclude_seen: bool | None
) -> None:
    ranked: list[torch.Tensor] = []
    update = ListCompletion.update

    def spy(self: ListCompletion, candidates: torch.Tensor, targets: torch.Tensor) -> None:
        ranked.append(candidates)
        update(self, candidates, targets)

    monkeypatch.setattr(ListCompletion, "update", spy)
    setting = [] if exclude_seen is None else [f"evaluation.exclude_seen={exclude_seen}"]
    config, _ = load_run_config(small_run(prepared_lists, model, "unused", *setting))
    with process_group("cpu") as context:
        trainer = Trainer(config, Schema.load(prepared_lists), context)
        trainer.evaluate()
    inputs = inputs_of(prepared_lists, "validation")
    candidates = [row for part in ranked for row in part.tolist()]
    assert len(candidates) == len(inputs)
    repeated = [bool(set(row) & set(had)) for row, had in zip(candidates, inputs, strict=True)]
    assert any(repeated) == (exclude_seen is None)
    assert all(NOTHING not in row for row in candidates)


def inputs_of(prepared: Path, split: str) -> list[list[int]]:
    files = Schema.load(prepared).splits[split].files
    return [row for file in files for row in pq.read_table(prepared / file)[INPUT].to_pylist()]


@pytest.mark.parametrize("depth", [1, 3, 8, 12])
def test_positions_by_popularity_with_ties_but_for_what_the_list_has(depth: int) -> None:
    """Against the expected values of one list at a time; ids outside 0 … 8 are unseen items or none."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([5, 1, 5, 0, 2, 5, 1, 1, 2])
    seen = torch.randint(-1, 11, (50, 7), generator=generator)
    targets = torch.randint(11, (50, 4), generator=generator)
    targets[:, 2:][torch.rand(50, 2, generator=generator) < 0.5] = NOTHING
    for left_out in (seen, seen[:, :0]):
        positions = popular_positions(counts, targets, left_out, depth)
        hit, found = positions.hit(depth), positions.found(depth)
        for row, (wanted, had) in enumerate(zip(targets.tolist(), left_out.tolist(), strict=True)):
            ranked = [item for item in range(9) if item not in had]
            plain = expected([counts[i].item() for i in ranked], [i in wanted for i in ranked], 1, depth)
            assert hit[row].item() == pytest.approx(plain["hr"])
            assert found[row].item() == pytest.approx(plain["recall"])


def test_the_baseline_has_the_protocol_of_runs(prepared_lists: Path, tmp_path: Path) -> None:
    given = ["data=aotm", f"data.path={prepared_lists}", "ndcg_at=[5]", "hit_rate_at=[5]", f"output={tmp_path}"]
    usual, excluded = evaluate_popularity(given), evaluate_popularity([*given, "exclude_seen=true"])
    assert usual.protocol["words"] == "items of the input may be ranked again"
    assert excluded.protocol["words"] == "items of the input are left out"
    assert usual.metrics["recall@5"] != excluded.metrics["recall@5"]


def test_the_baseline_does_not_replace_a_trained_run(prepared_lists: Path, tmp_path: Path) -> None:
    given = ["data=aotm", f"data.path={prepared_lists}", "ndcg_at=[5]", "hit_rate_at=[5]", f"output={tmp_path}"]
    (tmp_path / "config.yaml").write_text("model: {_target_: cove_dist.models.sequential.sasrec.SASRec}\n")
    with pytest.raises(ConfigError, match=r"output = .*: holds a run of .*SASRec; give another folder"):
        evaluate_popularity(given)
    assert len(list(tmp_path.iterdir())) == 1
