"""Unpooled look-ups of sequences in tables sharded over two real ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.config import EmbeddingsConfig, TableOptimizerConfig
from cove_dist.distributed import process_group
from cove_dist.embeddings.initialization import fill_normal_
from cove_dist.embeddings.optimizers import fuse_optimizer
from cove_dist.embeddings.sharding import plan_tables, sharders
from cove_dist.embeddings.tables import build_unpooled
from data_pipeline.schema import Categorical
from tests.distributed.ranks import run_ranks

DIM, ITEMS = 8, 41
HISTORY = Categorical("history", ITEMS, ITEMS - 1, "item", sequence=True, table="item_id")


class Histories(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sequences = build_unpooled([HISTORY], DIM)


def look_up_a_history() -> tuple[list[int], bool]:
    """Rows held here, and whether every id of a ragged batch comes back as its row of the whole table."""
    config = EmbeddingsConfig(
        dim=DIM,
        init_std=0.1,
        id_dropout=0.0,
        unseen="row",
        optimizer=TableOptimizerConfig("rowwise_adagrad", 0.1, 0.0, "all", 0.0),
        sharding={"default": "row_wise"},
    )
    with process_group("cpu") as context:
        model, ranks = Histories(), context.world_size
        fuse_optimizer(model.sequences, config, "cpu")
        plan = plan_tables(
            model,
            ["item_id"],
            config,
            device_type="cpu",
            world_size=ranks,
            local_world_size=ranks,
            batch_size=3,
            process_group=dist.group.WORLD,
        )
        sharded = DistributedModelParallel(model, plan=plan, sharders=sharders())
        [weight] = sharded.module.sequences.state_dict().values()
        shards = weight.local_shards()
        with torch.no_grad():
            for shard in shards:
                row, column = shard.metadata.shard_offsets
                fill_normal_(shard.tensor, std=0.1, seed=3, table="item_id", row_offset=row, column_offset=column)
        whole = torch.empty(ITEMS, DIM)
        fill_normal_(whole, std=0.1, seed=3, table="item_id", row_offset=0, column_offset=0)
        ids, lengths = torch.tensor([0, ITEMS - 1, 7, 30, 7]) - context.rank, torch.tensor([2, 0, 3])
        ids = ids.clamp(min=0)
        looked_up = sharded.module.sequences(KeyedJaggedTensor(["history"], ids, lengths=lengths)).wait()["history"]
        return [len(shard.tensor) for shard in shards], torch.equal(looked_up.values(), whole[ids])


def test_sequences_are_looked_up_row_by_row_in_a_sharded_table() -> None:
    rows, equal = zip(*run_ranks(2, look_up_a_history), strict=True)
    assert rows == ([21], [20])
    assert equal == (True, True)
