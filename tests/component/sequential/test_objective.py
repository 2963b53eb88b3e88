"""A step of the objective against the same step written out: replicated tables, one rank."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.sequential.catalogue import item_catalogue, owner_table
from cove_dist.tasks.sequential.positions import Embedded, predict_next
from cove_dist.training.build import TrainState, build, describe_model
from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.schema import INPUT, OWNER, TARGET, Schema
from tests.component.sequential.runs import small_run

COVE = ("quantizer=cove_items", "quantizer.item_levels=[6,3]", "quantizer.omega_q=0.3", "quantizer.omega_c=0.7")


def built(prepared: Path, context: DistributedContext, *overrides: str) -> tuple[TrainState, Batch, Schema]:
    config, _ = load_run_config(small_run(prepared, "Recurrent", "unused", "embeddings.init_std=0.5", *overrides))
    schema = Schema.load(prepared)
    batch = next(iter(task_of(config).build_training_loader(config, schema, context)))
    return build(config, schema, context, 32), batch, schema


def table_of(train_state: TrainState) -> torch.Tensor:
    [table] = train_state.model.module.tables.state_dict().values()
    return table


def test_replicated_tables_give_the_row_of_every_id(prepared_lists: Path, context: DistributedContext) -> None:
    train_state, batch, _ = built(prepared_lists, context)
    looked_up = train_state.model.module.tables(batch.ids).wait()
    for half in (INPUT, TARGET):
        assert torch.equal(looked_up[half].values(), table_of(train_state)[batch.ids[half].values()])


@pytest.mark.parametrize(
    ("quantizer", "fuse_output"),
    [((), True), (COVE, True), (COVE, False)],
    ids=["base", "cove", "cove, scored against raw embeddings"],
)
def test_the_loss_is_the_one_written_out(
    prepared_lists: Path, context: DistributedContext, quantizer: tuple[str, ...], fuse_output: bool
) -> None:
    train_state, batch, schema = built(prepared_lists, context, *quantizer, f"sequential.fuse_output={fuse_output}")
    objective, table = train_state.model.module.objective, table_of(train_state)
    loss, step = train_state.model(batch)

    ids = torch.cat([batch.ids[half].values() for half in (INPUT, TARGET)])
    every = torch.arange(schema.entity("item").num_seen)
    fed, scored, expected = table[ids], table[every], 0.0
    if quantizer:
        output, all_items = objective.quantizers["item"](fed), objective.quantizers["item"](scored)
        fed, scored = output.fused, all_items.fused if fuse_output else scored
        expected = 0.3 * output.loss
    lengths = [batch.ids[half].lengths() for half in (INPUT, TARGET)]
    hidden, which = predict_next(objective.model, Embedded(fed, *lengths, None))
    expected = expected + F.cross_entropy(hidden @ scored.T, ids[which])
    if quantizer:
        expected = expected + 0.7 * objective.classifier(hidden, output.codes[which])
    assert step.losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("softmax", ["vocabulary_parallel", "sampled"])
def test_every_item_may_have_a_bias(prepared_lists: Path, context: DistributedContext, softmax: str) -> None:
    sampled = ("sequential.sampled=100000",) if softmax == "sampled" else ()
    more = ("sequential.item_bias=true", f"sequential.softmax={softmax}", *sampled)
    train_state, batch, schema = built(prepared_lists, context, *more)
    model, table = train_state.model.module, table_of(train_state)[: schema.entity("item").num_seen]
    bias = model.objective.item_bias
    assert bias.shape == (len(table),) and (bias == 0).all()
    with torch.no_grad():
        bias.normal_()
    ids = torch.cat([batch.ids[half].values() for half in (INPUT, TARGET)])
    lengths = [batch.ids[half].lengths() for half in (INPUT, TARGET)]
    hidden, which = predict_next(model.objective.model, Embedded(table[ids], *lengths, None))
    scores = (hidden @ table.T + bias).detach()
    exact = F.cross_entropy(scores, ids[which])

    loss, _ = train_state.model(batch)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5 if softmax == "vocabulary_parallel" else 2e-2)
    loss.backward()
    error = scores.softmax(dim=1) - F.one_hot(ids[which], len(table))
    torch.testing.assert_close(bias.grad, error.mean(dim=0), rtol=1e-3, atol=8e-3 if softmax == "sampled" else 1e-6)

    model.eval()
    ranked = item_catalogue(model, schema, context.device).rank(hidden.detach(), 4)
    assert torch.equal(ranked, scores.argsort(dim=1, descending=True)[:, :4])


@pytest.mark.parametrize(("model", "published"), [("bert4rec", True), ("sasrec", False)])
def test_the_bias_is_the_papers_unless_said_otherwise(model: str, published: bool) -> None:
    overrides = ["data=aotm", "trainer=sequential", f"model={model}"]
    config, _ = load_run_config(overrides)
    assert config.has_item_bias is published
    assert load_run_config([*overrides, f"sequential.item_bias={not published}"])[0].has_item_bias is not published


def test_a_checkpoint_says_whether_it_has_the_bias(prepared_lists: Path) -> None:
    schema, given = Schema.load(prepared_lists), small_run(prepared_lists, "Recurrent", "unused")
    described = [
        describe_model(load_run_config([*given, *more])[0], schema) for more in ((), ("sequential.item_bias=true",))
    ]
    assert [each.pop("bias of items") for each in described] == [False, True]
    assert described[0] == described[1]


def with_categories(prepared: Path, folder: Path) -> Path:
    """The same data with a category for most items: their number modulo 5, as text."""
    shutil.copytree(prepared, folder)
    ids = pq.read_table(folder / "ids" / "item_id.parquet")
    kinds = pa.array([None if i % 11 == 0 else f"kind {i % 5}" for i in range(len(ids))])
    (folder / "categories").mkdir()
    pq.write_table(ids.append_column("kind", kinds), folder / "categories" / "item_id.parquet")
    return folder


def test_ready_made_categories_are_fed_and_predicted_first(
    prepared_lists: Path, tmp_path: Path, context: DistributedContext
) -> None:
    folder = with_categories(prepared_lists, tmp_path / "data")
    train_state, batch, schema = built(folder, context, "sequential.categories=kind", "sequential.two_stage=true")
    objective, table = train_state.model.module.objective, table_of(train_state)
    _, step = train_state.model(batch)
    assert objective.categories.count == 6
    numbers, vectors = objective.categories.numbers, objective.categories.vectors.weight
    assert len(numbers) == schema.entity("item").num_rows
    same = numbers[:-1, None] == numbers[:-1]
    kinds = torch.tensor([5 if i % 11 == 0 else i % 5 for i in range(len(numbers) - 1)])
    assert torch.equal(same, kinds[:, None] == kinds)

    ids = torch.cat([batch.ids[half].values() for half in (INPUT, TARGET)])
    lengths = [batch.ids[half].lengths() for half in (INPUT, TARGET)]
    hidden, which = predict_next(objective.model, Embedded(table[ids] + vectors[numbers[ids]], *lengths, None))
    every_item = objective.two_stage(hidden, table[:-1], numbers[:-1])
    exact = every_item.gather(1, ids[which].unsqueeze(1))
    assert step.losses["loss"].item() == pytest.approx(-exact.mean().item(), rel=1e-5)
    assert step.losses["loss"] == pytest.approx(step.losses["task"] + step.losses["category"])


@pytest.mark.parametrize("fuse_output", [True, False])
def test_the_coarsest_codes_are_categories_where_none_are_ready_made(
    prepared_lists: Path, context: DistributedContext, fuse_output: bool
) -> None:
    more = ("sequential.two_stage=true", "sequential.item_bias=true", f"sequential.fuse_output={fuse_output}")
    more += ("quantizer.omega_q=0", "quantizer.omega_c=0")
    train_state, batch, schema = built(prepared_lists, context, *COVE, *more)
    model, table = train_state.model.module, table_of(train_state)
    with torch.no_grad():
        bias = model.objective.item_bias.normal_()
    _, step = train_state.model(batch)
    ids = torch.cat([batch.ids[half].values() for half in (INPUT, TARGET)])
    lengths = [batch.ids[half].lengths() for half in (INPUT, TARGET)]
    output = model.objective.quantizers["item"](table[:-1])
    scored, codes = output.fused if fuse_output else table[:-1], output.codes[:, -1]
    hidden, which = predict_next(model.objective.model, Embedded(output.fused[ids], *lengths, None))
    scores, chosen = hidden @ scored.T + bias, codes[ids[which]]
    kinds = model.objective.two_stage.category_log_probabilities(hidden, codes)
    inside = scores.masked_fill(codes != chosen[:, None], -torch.inf)
    exact = F.nll_loss(kinds, chosen) + F.cross_entropy(inside, ids[which])
    assert step.losses["loss"].item() == pytest.approx(exact.item(), rel=1e-5)

    model.eval()
    catalogue = item_catalogue(model, schema, context.device)
    assert torch.equal(catalogue.categories, codes)
    likeliest = kinds.argmax(dim=1)
    ranked = catalogue.rank(hidden.detach(), 4)
    for row in range(10):
        inside = (codes == likeliest[row]).nonzero().squeeze(1)
        best = inside[torch.argsort(scores[row, inside], descending=True)][:4].tolist()
        assert ranked[row].tolist() == best + [-1] * (4 - len(best))


def test_categories_that_are_not_there_are_named(
    prepared_lists: Path, tmp_path: Path, context: DistributedContext
) -> None:
    with pytest.raises(ConfigError, match=r"item_id\.parquet: no such file; make it: cove cluster_items"):
        built(prepared_lists, context, "sequential.categories=kind")
    folder = with_categories(prepared_lists, tmp_path / "data")
    with pytest.raises(ConfigError, match=r"sequential\.categories = kinds: .* has kind; choose one"):
        built(folder, context, "sequential.categories=kinds")
    with pytest.raises(ConfigError, match=r"sequential\.two_stage = true: needs categories"):
        built(folder, context, "sequential.two_stage=true")
    with pytest.raises(ConfigError, match=r"two_stage = true: not with softmax = sampled"):
        built(folder, context, "sequential.two_stage=true", "sequential.softmax=sampled")


def test_the_catalogue_holds_every_item_as_it_is_fed_and_scored(
    prepared_lists: Path, context: DistributedContext
) -> None:
    train_state, _, schema = built(prepared_lists, context, *COVE, "sequential.fuse_output=false")
    model, table = train_state.model.module, table_of(train_state)
    model.eval()
    catalogue = item_catalogue(model, schema, context.device)
    assert torch.equal(catalogue.scored, table[:-1])
    torch.testing.assert_close(catalogue.fed, model.objective.quantizers["item"](table).fused)


@pytest.mark.parametrize("softmax", [("full",), ("sampled", "sequential.sampled=40")], ids=["full", "sampled"])
@pytest.mark.parametrize("model", [("OwnerAware",), ("Masked",), ("Parallel", "sequential.curriculum_steps=20")])
def test_every_kind_of_model_learns(
    prepared_lists: Path, context: DistributedContext, model: tuple[str, ...], softmax: tuple[str, ...]
) -> None:
    rate = ("trainer.optimizer.learning_rate=0.1", "embeddings.optimizer.learning_rate=0.1")
    epochs = 10 if model == ("Masked",) else 4  # it learns from few positions of a step
    more = (f"sequential.softmax={softmax[0]}", *softmax[1:], *model[1:], f"trainer.epochs={epochs}")
    config, _ = load_run_config(small_run(prepared_lists, model[0], "unused", *rate, *more))
    trainer = Trainer(config, Schema.load(prepared_lists), context)
    losses = []
    for epoch in range(epochs):
        trainer.train_loader.set_epoch(epoch)
        losses += [output.losses["task"].item() for output in trainer.steps(iter(trainer.train_loader))]
    tail = len(losses) // 5
    assert sum(losses[-tail:]) < 0.95 * sum(losses[:tail])


def test_without_alpha_and_omega_cove_is_the_base_model_to_the_bit(
    prepared_lists: Path, context: DistributedContext
) -> None:
    def losses(*overrides: str) -> list[float]:
        config, _ = load_run_config(small_run(prepared_lists, "Recurrent", "unused", *overrides))
        trainer = Trainer(config, Schema.load(prepared_lists), context)
        return [output.losses["task"].item() for output in trainer.steps(iter(trainer.train_loader))]

    off = ("quantizer.alpha=0", "quantizer.omega_q=0", "quantizer.omega_c=0")
    assert losses(*COVE, *off) == losses()
    assert losses(*COVE) != losses()


def test_the_curriculum_hides_a_growing_share(prepared_lists: Path, context: DistributedContext) -> None:
    config, _ = load_run_config(small_run(prepared_lists, "Parallel", "unused", "sequential.curriculum_steps=4"))
    objective = build(config, Schema.load(prepared_lists), context, 32).model.module.objective
    assert [objective.known_share() for _ in range(6)] == [0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    assert objective.state_dict()["steps"] == 6
    objective.reset_steps()
    assert [objective.known_share() for _ in range(2)] == [0.75, 0.5]
    assert objective.state_dict()["steps"] == 2


def test_owners_that_training_never_saw_add_nothing(prepared_lists: Path, context: DistributedContext) -> None:
    """Their rows are random, and nothing trains them."""
    schema = Schema.load(prepared_lists)
    config, _ = load_run_config(small_run(prepared_lists, "OwnerAware", "unused"))
    model = build(config, schema, context, 32).model.module
    [column] = [column for column in schema.categorical if column.name == OWNER]
    owners = owner_table(model, schema, context.device)
    assert owners is not None and len(owners) == column.num_rows > column.num_seen
    assert (owners[: column.num_seen] != 0).any(dim=1).all()
    assert not owners[column.num_seen :].any()


def test_data_without_sequences_is_refused(prepared: Path, context: DistributedContext) -> None:
    config, _ = load_run_config(small_run(prepared, "Recurrent", "unused"))
    with pytest.raises(ConfigError, match="has no sequences"):
        build(config, Schema.load(prepared), context, 32)
