"""Plans of training runs: bytes and traffic by hand, what is refused, and what makes a run fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cove_dist import cli
from cove_dist.commands import plan as command
from cove_dist.errors import ConfigError
from cove_dist.planning.memory import totals
from cove_dist.planning.program import Plan, plan_run, suggest
from cove_dist.planning.request import read_request
from cove_dist.planning.step import _measure, step_cost
from cove_dist.tasks.registry import task_of
from cove_dist.torch_compat import topology

GB = 1 << 30
SIZES = ("users=1000000", "items=2e5", "trainer.batch_size=4096", "suggest=false")
ROWWISE = ("embeddings.optimizer.name=rowwise_adagrad",)


def planned(*arguments: str) -> Plan:
    return plan_run(read_request([*SIZES, *arguments]))


def by_rows(sharding: str, *further: str) -> tuple[str, ...]:
    return (*ROWWISE, f"embeddings.sharding.default={sharding}", "model=dcn", "embeddings.dim=64", *further)


def test_bytes_of_row_wise_tables_are_those_of_their_rows() -> None:
    plan = planned(*by_rows("row_wise", "world_size=8"))
    users, items = -(-1_000_001 // 8), -(-200_001 // 8)
    assert plan.ranks[0].weights == (users + items) * 64 * 4
    assert plan.ranks[0].optimizer_state == (users + items) * 4
    assert sum(rank.weights for rank in plan.ranks) == (1_000_001 + 200_001) * 64 * 4
    assert plan.ranks[0].gradients == plan.ranks[0].host == 0


@pytest.mark.parametrize(
    ("optimizer", "per_number", "per_row"),
    [("sgd", 0, 0), ("adagrad", 1, 0), ("adam", 2, 0), ("rowwise_adagrad", 0, 4)],
)
def test_data_parallel_tables_are_whole_on_every_rank(optimizer: str, per_number: int, per_row: int) -> None:
    tables = (f"embeddings.optimizer.name={optimizer}", "embeddings.sharding.default=data_parallel")
    plan = planned("model=dcn", "embeddings.dim=16", "world_size=4", "device=cpu", *tables)
    rows = 1_000_001 + 200_001
    for rank in plan.ranks:
        assert rank.weights == rank.gradients == rows * 16 * 4
        assert rank.optimizer_state == rows * 16 * 4 * per_number + rows * per_row


def test_cached_tables_are_in_host_memory() -> None:
    plan = planned(*by_rows("table_wise", "world_size=2", "embeddings.cache_load_factor=0.25"))
    whole, cached = planned(*by_rows("table_wise", "world_size=2")), sum(rank.weights for rank in plan.ranks)
    assert {table.kernel for table in plan.tables} == {"fused_uvm_caching"}
    weights, states = (sum(getattr(r, kind) for r in whole.ranks) for kind in ("weights", "optimizer_state"))
    assert sum(rank.host for rank in plan.ranks) == weights + states
    rows = 1_000_001 + 200_001
    assert cached == pytest.approx(0.25 * weights + rows * (4 + 16 * 0.25), abs=4)


@pytest.mark.parametrize("cached", [(), ("embeddings.cache_load_factor=0.25",)])
def test_a_checkpoint_is_a_copy_of_tables_and_state_in_host_memory(cached: tuple[str, ...]) -> None:
    arguments = by_rows("row_wise", "world_size=4", "local_world_size=2")
    plan = planned(*arguments, *cached)
    users, items = -(-1_000_001 // 4), -(-200_001 // 4)
    objective = _objective(plan)
    parameters = sum(each.numel() for each in objective.parameters()) * 4 * 3  # with both moments of Adam
    buffers = sum(each.numel() * each.element_size() for each in objective.buffers())
    assert plan.ranks[0].checkpoint == (users + items) * (64 * 4 + 4) + parameters + buffers
    assert plan.host_bytes == sum(rank.host + rank.checkpoint for rank in plan.ranks[:2])
    enough, little = (plan.host_bytes / GB + more for more in (0.001, -0.001))
    assert planned(*arguments, *cached, f"host_gb={enough}").fits
    assert not planned(*arguments, *cached, f"host_gb={little}").fits


def test_the_fullest_host_decides() -> None:
    plan = planned(*by_rows("row_wise", "world_size=4", "local_world_size=2"))
    rank = plan.ranks[0]
    first, second = [replace(rank, host=1), replace(rank, host=2)], [replace(rank, host=5), replace(rank, host=9)]
    assert replace(plan, ranks=[*first, *second]).host_bytes == 14 + 2 * rank.checkpoint
    assert replace(plan, ranks=[*second, *first]).host_bytes == 14 + 2 * rank.checkpoint
    assert replace(plan, ranks=[]).host_bytes == 0


def test_ranks_on_cpu_have_the_copy_of_a_checkpoint_next_to_what_they_train() -> None:
    arguments = by_rows("row_wise", "world_size=2", "device=cpu")
    plan = planned(*arguments)
    assert plan.host_bytes == sum(rank.device + rank.checkpoint for rank in plan.ranks)
    enough, little = (plan.host_bytes / GB + more for more in (0.001, -0.001))
    assert planned(*arguments, f"host_gb={enough}").fits
    assert not planned(*arguments, f"host_gb={little}").fits


def test_rows_within_a_host_are_on_its_ranks() -> None:
    plan = planned(*by_rows("table_row_wise", "world_size=8", "local_world_size=4"))
    for table in plan.tables:
        ranks = sorted(shard.rank for shard in table.shards)
        assert ranks in ([0, 1, 2, 3], [4, 5, 6, 7])
    grid = planned(*by_rows("grid_shard", "world_size=8", "local_world_size=4"))
    for table in grid.tables:
        assert {(shard.rows, shard.columns) for shard in table.shards} <= {
            (-(-table.rows // 4), 32), (table.rows - 3 * -(-table.rows // 4), 32)
        }  # fmt: skip
        assert sum(shard.rows * shard.columns for shard in table.shards) == table.rows * 64


@pytest.mark.parametrize(("world_size", "hosts", "speed"), [(1, 1, 10), (2, 1, 10), (4, 2, 5)])
def test_the_all_reduce_of_data_parallel_tables_takes_the_time_of_its_ring(
    world_size: int, hosts: int, speed: int
) -> None:
    ranks = (f"world_size={world_size}", f"local_world_size={world_size // hosts}")
    tables = ("model=bprmf", "embeddings.dim=16", "embeddings.sharding.default=data_parallel", "device=cpu", *ranks)
    plan = planned(*tables, "intra_host_gb_per_second=10", "inter_host_gb_per_second=5")
    faster = planned(*tables, "intra_host_gb_per_second=100", "inter_host_gb_per_second=50")
    assert plan.time is not None and faster.time is not None and plan.traffic is not None
    sent = 2 * (world_size - 1) / world_size * (1_000_001 + 200_001) * 16 * 4
    assert plan.traffic.all_reduce == pytest.approx(sent)
    assert plan.time.all_reduce == pytest.approx(1000 * sent / (speed * GB))
    assert plan.time.tables == faster.time.tables > 0


@pytest.mark.parametrize(("hosts", "gathers"), [(1, False), (4, True)])
def test_ranks_of_several_hosts_gather_the_rows_of_sparse_optimizers(hosts: int, gathers: bool) -> None:
    """On one host they share the tables. A row of the batch looks up a user, an item and a negative."""
    ranks = ("world_size=4", f"local_world_size={4 // hosts}", "device=cpu")
    plan = planned("model=bprmf", "embeddings.dim=16", "embeddings.optimizer.name=sparse_adam", *ranks)
    assert plan.traffic is not None and plan.time is not None
    sent = 3 * (4096 // 4 * 3) * (16 * 4 + 8) if gathers else 0
    assert plan.traffic.all_reduce == pytest.approx(sent)
    assert (plan.time.all_reduce > 0) == gathers


def test_traffic_of_table_wise_tables_by_hand() -> None:
    """Two ranks, a table on each: half of all ids, rows and gradients cross."""
    plan = planned(*by_rows("table_wise", "world_size=2"))
    rows, traffic = 2048, plan.traffic
    assert traffic is not None
    owners = {table.shards[0].rank for table in plan.tables}
    requests = 2 * rows * (8 + 8) / 2  # of two tables: an id and a length
    vectors, gradients = rows * 64 * 4, 2 * rows * 64 * 4 / 2
    assert traffic.mean_all_to_all == requests + vectors + gradients
    assert owners == {0, 1} and traffic.all_to_all == traffic.mean_all_to_all
    parameters = sum(each.numel() for each in _objective(plan).parameters())
    assert traffic.all_reduce == 2 * (1 / 2) * 4 * parameters


def test_traffic_of_row_wise_sums_grows_with_the_ranks() -> None:
    four, eight = (planned(*by_rows("row_wise", f"world_size={w}", f"trainer.batch_size={512 * w}")) for w in (4, 8))
    for plan, ranks in ((four, 4), (eight, 8)):
        vectors = 2 * 512 * 64 * 4  # of both tables: every rank makes partial sums for all, and gathers all gradients
        requests = (2 * 512 + ranks * 2 * 512) * 8 * (ranks - 1) / ranks
        sent = requests + 2 * vectors * (ranks - 1)
        assert plan.traffic is not None
        assert plan.traffic.mean_all_to_all == pytest.approx(sent, rel=0.01)


def _objective(plan: Plan):
    request = plan.request
    return task_of(request.config).build_model(request.config, request.schema).objective


@pytest.mark.parametrize(
    "arguments",
    [
        ("model=deepfm", "quantizer=cove"),
        ("model=finalmlp", "columns={city:1000}", "dense_columns=3"),
        ("model=neumf", "quantizer=cove", "negatives.count=3"),
        ("model=sasrec", "sequence_length=12", "users=null"),
        ("model=gru4rec", "quantizer=cove_items", "users=null"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_costs_of_a_large_batch_follow_from_small_ones(arguments: tuple[str, ...]) -> None:
    request = read_request(["users=5000", "items=3000", "world_size=1", "device=cpu", "embeddings.dim=16", *arguments])
    task = task_of(request.config)
    model = task.build_model(request.config, request.schema)
    lookups = task.lookups(request.config, request.schema, 200, 1)
    expected = step_cost(model, request.schema, lookups, 200)
    measured = _measure(model, request.schema, lookups, 200, max(lookups.per_batch.values(), default=0))
    assert expected.activations == pytest.approx(measured.activations, rel=0.1)
    assert expected.flops == pytest.approx(measured.flops, rel=0.1)
    assert measured.activations > 0 and measured.flops > 0


def test_the_devices_are_described_to_torchrec_in_bytes_per_millisecond() -> None:
    plan = planned(*by_rows("row_wise", "world_size=16", "local_world_size=8"))
    slower = planned(*by_rows("row_wise", "world_size=16", "local_world_size=8", "inter_host_gb_per_second=4.5"))
    assert plan.time is not None and slower.time is not None
    assert slower.time.all_reduce == pytest.approx(10 * plan.time.all_reduce)
    assert slower.time.tables > 2 * plan.time.tables
    assert topology(world_size=1, compute_device="cuda").hbm_mem_bw / GB * 1000 == pytest.approx(897)  # of TorchRec


def test_a_run_that_does_not_fit_says_what_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("embeddings.dim=64", "model=dcn", "embeddings.sharding.default=table_wise")
    arguments = [*SIZES[:3], "world_size=2", "hbm_gb=0.5", *tables, f"json={tmp_path / 'plan.json'}"]
    with pytest.raises(SystemExit) as stopped:
        command.run(arguments)
    assert stopped.value.code == 1
    shown, record = capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text())
    assert "does not fit: 0.4 GB per rank after a reserve of 15%" in shown
    assert not record["fits"]
    changes = [each["overrides"] for each in record["suggestions"]]
    assert ["embeddings.optimizer.name=rowwise_adagrad"] in changes
    assert ["embeddings.cache_load_factor=0.2"] in changes
    for each in record["suggestions"]:
        again = plan_run(read_request([*arguments[:-1], "suggest=false", *_replacing(each["overrides"], arguments)]))
        assert again.fits and totals(again.ranks)["total"] == each["bytes_per_rank"]["total"]


def _replacing(overrides: list[str], arguments: list[str]) -> list[str]:
    keys = {override.partition("=")[0] for override in overrides}
    for argument in [a for a in arguments if a.partition("=")[0] in keys]:
        arguments.remove(argument)
    return overrides


def test_a_run_that_fits_ends_without_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    command.run([*SIZES, *by_rows("row_wise", "world_size=4")])
    shown = capsys.readouterr().out
    assert re.search(r"^fits: 68.0 GB per rank after a reserve of 15%$", shown, flags=re.MULTILINE)
    assert "user_id" in shown and "row_wise" in shown


def test_nothing_to_suggest_where_more_ranks_are_needed() -> None:
    request = read_request(["users=1e9", "items=1e8", "world_size=1", "host_gb=1", "device=cpu", "model=dcn"])
    assert not plan_run(request).fits and suggest(request) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("device=cpu", "embeddings.cache_load_factor=0.2"), "cache_load_factor = 0.2: keeps tables in host memory"),
        (("device=cpu", *ROWWISE, "embeddings.sharding.default=grid_shard"), "that TorchRec has on cuda only; on cpu"),
        (("model=bprmf", *ROWWISE, "embeddings.sharding.default=table_row_wise"), "for look-ups that are summed"),
        (
            ("embeddings.cache_load_factor=0.2", "embeddings.sharding.default=data_parallel"),
            "caches the rows of sharded",
        ),
        (("model=lightgcn",), "propagates over the graph of all interactions"),
        (("model=sasrec", "sequential.softmax=sampled", "users=null"), "give a prepared folder by data=FOLDER"),
        (("model=sasrec",), "users = 1000000: sequential models have no table of users; state items only"),
        (("model=bprmf", "users=null"), "users, items: state both"),
        (("model=bprmf", "dense_columns=2"), "are columns of labelled examples"),
        (("data=toys",), "give either a prepared folder, or the sizes"),
        (("trainer.device=cuda",), "the device of the planned run is set by device=cuda"),
        (("world_size=12",), "world_size = 12 is not a multiple of it"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        planned(*arguments)


def test_sizes_are_stated_together() -> None:
    with pytest.raises(ConfigError, match="users, items: state both"):
        read_request(["users=10"])
    with pytest.raises(ConfigError, match="sequence_length: acts with users=N items=N"):
        read_request(["sequence_length=20"])


def test_the_printed_settings_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "--print-config", "model=dcn", "world_size=4"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["world_size"] == 4 and "model" not in printed
