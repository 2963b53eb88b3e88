"""``embeddings.unseen=codes``: the out-of-vocabulary rows on 1, 2 and 4 ranks, against the sum over ranks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cove_dist.distributed import process_group
from cove_dist.embeddings.parts import local_parts, table_weights
from cove_dist.errors import ConfigError
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import ENTITIES, Schema
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.interactions import SMALL_RUN

CODES = (*COVE, "embeddings.unseen=codes", "embeddings.optimizer.learning_rate=0.05", "embeddings.init_std=0.3")
Parts = list[tuple[int, int, np.ndarray]]


def settled(overrides: list[str]) -> dict[str, Any]:
    """Train; return this rank's parts of the tables before and after, its counts of codes, and the codebooks."""
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        trainer = Trainer(config, schema, context)
        start = parts_of(trainer)
        trainer.check_and_complete_state()
        assert str(parts_of(trainer)) == str(start)  # no code was chosen yet
        for _ in islice(trainer.steps(iter(trainer.train_loader)), 6):
            pass
        trainer.check_and_complete_state()
        quantizers = trainer.train_state.model.module.objective.quantizers
        usage = {entity: [level.numpy() for level in quantizers[entity].usage()] for entity in ENTITIES}
        books = {entity: [book.detach().numpy() for book in quantizers[entity].codebooks] for entity in ENTITIES}
        return {"parts": parts_of(trainer), "usage": usage, "books": books}


def parts_of(trainer: Trainer) -> dict[str, Parts]:
    weights = table_weights(trainer.train_state.model.module.tables)
    parts = {entity: local_parts(weights[trainer.schema.entity(entity).table_name]) for entity in ENTITIES}
    return {
        entity: [(part.row, part.column, part.values.detach().clone().numpy()) for part in found]
        for entity, found in parts.items()
    }


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated", "row-wise"])
@pytest.mark.parametrize("cascade", ["codes", "residual"])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_row_is_the_mean_of_the_codes_by_the_counts_of_all_ranks(
    prepared: Path, world_size: int, cascade: str, tables: tuple[str, ...]
) -> None:
    overrides = small_run(prepared, "unused", *CODES, f"quantizer.cascade={cascade}", *tables)
    ranks, schema = run_ranks(world_size, settled, overrides), Schema.load(prepared)
    for entity in ENTITIES:
        books, column = ranks[0]["books"][entity], schema.entity(entity)
        counts = [sum(rank["usage"][entity][level].astype(float) for rank in ranks) for level in range(len(books))]
        means = [count @ book.astype(float) / count.sum() for count, book in zip(counts, books, strict=True)]
        table = np.full((column.num_rows, books[0].shape[1]), np.nan, np.float32)
        for rank in ranks:
            for row, first, values in rank["parts"][entity]:
                table[row : row + len(values), first : first + values.shape[1]] = values
        expected = sum(means) if cascade == "residual" else means[0]
        np.testing.assert_allclose(table[column.num_seen], expected, rtol=1e-5, atol=1e-6)


def test_the_losses_of_a_graph_model_do_not_depend_on_when_the_row_is_set(interactions: Path, tmp_path: Path) -> None:
    """It is looked up with its block at every step, and set before each validation and each save."""
    given = [*SMALL_RUN, f"data.path={interactions}", "model=lightgcn", *CODES, "trainer.log_every=1", "logger=none"]
    whole, validated, parts = (tmp_path / name for name in ("whole", "validated", "parts"))
    run_ranks(2, train, [*given, f"output={whole}"])
    run_ranks(2, train, [*given, "trainer.validate_every_steps=2", f"output={validated}"])
    run_ranks(2, train, [*given, "trainer.max_steps=3", f"output={parts}"])
    run_ranks(2, train, [*given, "trainer.checkpoint.resume=auto", f"output={parts}"])
    assert len(losses(whole)) > 4
    assert losses(validated) == losses(whole)
    assert losses(parts) == losses(whole)


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_records(run / LOG_FILE) if "loss" in record}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("embeddings.id_dropout=0.1", *COVE), "unseen = codes: not with id_dropout = 0.1, which trains that row"),
        ((), r"embeddings\.unseen = codes: would do nothing: there are no codes"),
    ],
)
def test_what_has_no_such_row_is_refused(prepared: Path, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(small_run(prepared, "unused", "embeddings.unseen=codes", *settings))


def test_rows_that_are_cached_are_refused_in_training_alone(prepared: Path) -> None:
    overrides = small_run(prepared, "unused", "embeddings.unseen=codes", "embeddings.cache_load_factor=0.2", *COVE)
    config, _ = load_run_config(overrides)  # as of an earlier run, which can be evaluated
    with pytest.raises(ConfigError, match=r"unseen = codes: not with embeddings\.cache_load_factor = 0\.2: .* = null"):
        task_of(config).check_data(config, Schema.load(prepared))


def test_sequential_models_have_no_such_row() -> None:
    overrides = ["data=aotm", "trainer=sequential", "model=sasrec", "quantizer=cove_items", "embeddings.unseen=codes"]
    with pytest.raises(
        ConfigError, match=r"embeddings\.unseen = codes: would do nothing: sequential models know users by"
    ):
        load_run_config(overrides)
