"""Look-up and update of one large table by fused optimizers, beside the bytes that they must move.

A batch has 65,536 rows of 26 fields with ids by Zipf's law; batches alternate, so that caches are those of training.
Least bytes: the looked-up rows written and their gradients read, and for every distinct id of a batch its row read for
the look-up, and row and moments read and written for the update. Goal: the time over that of these bytes, ``x floor``,
is flat in the table's size to 15 %; the distinct ids, and so the time itself, grow with it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import torch
from clock import Bench, copy_rate, milliseconds
from runs import context_of
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from cove_dist.torch_compat import apply_optimizer_in_backward
from results import Row

DIM, FIELDS = 64, 26
MILLIONS = (1, 10, 100, 250)
OPTIMIZERS = {"rowwise_adagrad": (RowWiseAdagrad, 4), "adam": (torch.optim.Adam, 8 * DIM)}  # bytes of moments a row
FREE = 0.92  # of the device's memory, at most


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for millions in MILLIONS if not bench.tiny else (1,):
        for name in OPTIMIZERS:
            yield f"{name}, {millions} M rows", partial(measure, bench, name, millions * bench.size(1_000_000, 500))


def measure(bench: Bench, optimizer: str, rows: int) -> Row:
    kind, moments = OPTIMIZERS[optimizer]
    if bench.device.type == "cpu" and optimizer == "adam":
        return {"skipped": "fbgemm fuses Adam on CUDA only"}
    predicted = rows * (4 * DIM + moments)
    if bench.device.type == "cuda":
        gc.collect()  # sharded models hold reference cycles, and their tables with them
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        free = torch.cuda.mem_get_info()[0]
        if predicted > FREE * free:
            return {
                "skipped": f"needs {predicted / 1e9:.0f} GB of {free / 1e9:.0f} GB",
                "predicted GB": predicted / 1e9,
            }
    table = build_table(bench, kind, rows)
    batches = [draw(bench, rows, seed) for seed in range(bench.size(4, 2))]
    following = cycle(batches)
    gradient = torch.randn(bench.size(65_536, 32), FIELDS * DIM, device=bench.device)

    def look_up_and_update() -> None:
        table(next(following)).values().backward(gradient)

    time = milliseconds(look_up_and_update, bench)
    distinct = sum(len(torch.unique(batch.values())) for batch in batches) / len(batches)
    least = 2 * gradient.nbytes + distinct * (3 * 4 * DIM + 2 * moments)
    row: Row = {"ms": time, "floor ms": 1e3 * least / copy_rate(bench), "distinct ids": distinct}
    row |= {"x floor": time / row["floor ms"], "predicted GB": predicted / 1e9}
    if bench.device.type == "cuda":
        row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return row


class Holder(nn.Module):
    """Holds the tables, for `DistributedModelParallel` to replace by sharded ones."""

    def __init__(self, bags: EmbeddingBagCollection) -> None:
        super().__init__()
        self.bags = bags

    def forward(self, ids: KeyedJaggedTensor) -> KeyedTensor:
        return self.bags(ids)


def build_table(bench: Bench, optimizer: type[torch.optim.Optimizer], rows: int) -> nn.Module:
    """Build one table that all fields share, whole on the device; the planner would reserve memory that it may fill."""
    fields = [f"f{i}" for i in range(FIELDS)]
    config = EmbeddingBagConfig(name="table", embedding_dim=DIM, num_embeddings=rows, feature_names=fields)
    bags = EmbeddingBagCollection(tables=[config], device=torch.device("meta"))
    apply_optimizer_in_backward(optimizer, bags.parameters(), {"lr": 0.001})
    context = context_of(bench)
    whole = table_wise(rank=0, compute_kernel=EmbeddingComputeKernel.FUSED.value)
    plan = construct_module_sharding_plan(
        bags, {"table": whole}, local_size=1, world_size=1, device_type=context.device.type
    )
    return DistributedModelParallel(Holder(bags), device=context.device, plan=ShardingPlan({"bags": plan}))


def draw(bench: Bench, rows: int, seed: int) -> KeyedJaggedTensor:
    """Draw ids by Zipf's law; a fixed multiplier spreads the frequent ones over the table."""
    random = torch.Generator(bench.device).manual_seed(seed)
    count = FIELDS * bench.size(65_536, 32)
    uniform = torch.rand(count, dtype=torch.float64, device=bench.device, generator=random)
    ids = ((rows + 1.0) ** uniform - 1).long().clamp(max=rows - 1) * 2_654_435_761 % rows
    lengths = torch.ones(count, dtype=torch.int64, device=bench.device)
    ids = KeyedJaggedTensor([f"f{i}" for i in range(FIELDS)], ids, lengths=lengths)
    ids.length_per_key()
    return ids
