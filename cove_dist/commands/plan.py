"""Plan a training run before paying for it: placement of tables, bytes per rank, traffic and time of a step.

Needs no GPU and no other process. All settings of cove train are accepted. Exits with 0 if the run fits, with 1 if it
does not, and with 2 if a setting is invalid.

cove plan model=deepfm users=1e9 items=1e8 world_size=128 local_world_size=8 hbm_gb=80
cove plan experiment=toys_bprmf data=data/toys world_size=2 device=cpu json=plan.json
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from cove_dist.faults.outputs import check_writable
from cove_dist.planning.memory import totals
from cove_dist.planning.placement import GB, PlacedTable
from cove_dist.planning.program import Plan, Suggestion, plan_run, suggest
from cove_dist.planning.request import own_settings, read_request
from data_pipeline.json_files import write_json

_MB = 1 << 20
_KINDS = {
    "weights": "tables (with a cache: its rows)",
    "optimizer_state": "optimizer state of tables",
    "gradients": "gradients of data-parallel tables",
    "buckets": "the same once more, after the first step (DDP)",
    "lookups": "ids and looked-up rows",
    "dense": "dense parameters, gradients, state",
    "activations": "activations",
}


overrides = own_settings  # of --print-config


def run(arguments: Sequence[str]) -> None:
    request = read_request(arguments)
    if request.settings.json is not None:
        check_writable(Path(request.settings.json).parent)
    plan = plan_run(request)
    suggestions = suggest(request) if request.settings.suggest and not plan.fits else []
    if request.settings.json is not None:
        changes = [{"overrides": each.overrides, **each.plan.record()} for each in suggestions]
        write_json(Path(request.settings.json), plan.record() | {"suggestions": changes})
    console = Console()
    for part in shown(plan, suggestions):
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
    if not plan.fits:
        raise SystemExit(1)


def shown(plan: Plan, suggestions: list[Suggestion]) -> Iterator[Table | str]:
    """Yield the tables and lines of a plan."""
    settings = plan.request.settings
    where = f"{settings.world_size} ranks, {settings.ranks_per_host} per host, {settings.device}"
    yield f"{plan.request.config.model.name} on {where}, {plan.rows:,} rows per rank and step"
    if plan.tables:
        yield _placement(plan.tables)
        yield _bytes(plan)
        yield from _step(plan)
    else:
        needed, there = plan.table_bytes / GB, plan.capacity * settings.world_size / GB
        yield (
            f"TorchRec's planner finds no placement: tables and optimizer state take {needed:,.1f} GB, and all ranks"
            f" together have {there:,.1f} GB for them and everything else"
        )
    yield f"{'fits' if plan.fits else 'does not fit'}: {plan.capacity / GB:,.1f} GB per rank{_reserved(plan)}"
    if not plan.fits:
        if plan.host_bytes > settings.host_gb * GB:
            yield (
                f"a host needs {plan.host_bytes / GB:,.1f} GB with the copy of a checkpoint that is written, and has"
                f" {settings.host_gb:,.1f} GB"
            )
        yield from _changes(suggestions)


def _reserved(plan: Plan) -> str:
    settings = plan.request.settings
    return f" after a reserve of {settings.reserve:.0%}" if settings.device == "cuda" else ""


def _placement(tables: list[PlacedTable]) -> Table:
    names = ("table", "shape", "sharding", "kernel", "ranks", "largest shard")
    shown = Table(*(Column(name, overflow="fold") for name in names), title="placement of tables")
    for table in tables:
        ranks = sorted({shard.rank for shard in table.shards})
        first, last = ranks[0], ranks[-1]
        whole = len(ranks) > 2 and len(ranks) == last - first + 1
        held = f"{first} to {last}" if whole else ", ".join(map(str, ranks))
        largest = max(table.shards, key=lambda shard: shard.rows * shard.columns)
        shape = f"{largest.rows:,} x {largest.columns}"
        whole_shape = f"{table.rows:,} x {table.dim}"
        shown.add_row(table.name, whole_shape, table.sharding, table.kernel, held, shape)
    return shown


def _bytes(plan: Plan) -> Table:
    bytes_ = totals(plan.ranks)
    shown = Table("memory of the fullest rank", "GB")
    for kind, words in _KINDS.items():
        shown.add_row(words, f"{bytes_[kind] / GB:,.3f}")
    shown.add_row("total", f"{bytes_['total'] / GB:,.3f}", end_section=True)
    shown.add_row("total of the emptiest rank", f"{bytes_['emptiest'] / GB:,.3f}")
    if bytes_["host"]:
        shown.add_row("host memory per rank, of cached tables", f"{bytes_['host'] / GB:,.3f}")
    shown.add_row("host memory per rank, of a checkpoint until it is written", f"{bytes_['checkpoint'] / GB:,.3f}")
    return shown


def _step(plan: Plan) -> Iterator[str]:
    if plan.traffic is None or plan.time is None:
        return
    sent, mean, reduced = (each / _MB for each in plan.traffic)
    yield (
        f"sent per step: all-to-all {sent:,.1f} MB by the busiest rank ({mean:,.1f} on average), all-reduce"
        f" {reduced:,.1f} MB"
    )
    time = plan.time
    yield (
        f"step, without overlap: {time.total:,.2f} ms = tables {time.tables:,.2f} + matrix products {time.dense:,.2f}"
        f" + all-reduce {time.all_reduce:,.2f}; {1000 * plan.rows * len(plan.ranks) / time.total:,.0f} rows/s"
    )


def _changes(suggestions: list[Suggestion]) -> Iterator[Table | str]:
    if not suggestions:
        yield "No change of placement, optimizer, cache or width makes it fit: use more ranks or fewer ids"
        return
    shown = Table("fits with", "GB per rank", "host GB", "ms", title="changes")
    for overrides, plan in suggestions:
        bytes_, time = totals(plan.ranks), "" if plan.time is None else f"{plan.time.total:,.2f}"
        host = f"{bytes_['host'] / GB:,.1f}" if bytes_["host"] else ""
        shown.add_row(" ".join(overrides), f"{bytes_['total'] / GB:,.1f}", host, time)
    yield shown
