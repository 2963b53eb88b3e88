"""TorchRec's golden training loop, with the head, tables and batches of a run of this project, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from clock import Bench
from runs import context_of
from torch import nn
from torchrec.distributed import DistributedModelParallel, TrainPipelineSparseDist
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedTensor

from cove_dist.config import RunConfig
from cove_dist.models.ctr.base import CTRHead
from cove_dist.torch_compat import apply_optimizer_in_backward
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema


class BareModel(nn.Module):
    """Tables, and what follows the look-up."""

    def __init__(self, config: RunConfig, schema: Schema, precision: torch.dtype) -> None:
        super().__init__()
        names, dim = [column.name for column in schema.categorical], config.embeddings.dim
        head = config.model.build(CTRHead, len(names), dim, len(schema.dense))
        widths = {"": dim} | ({"_first_order": 4} if head.uses_first_order else {})
        tables = [
            EmbeddingBagConfig(
                name=column.name + suffix,
                embedding_dim=width,
                num_embeddings=column.num_rows,
                feature_names=[column.name],
            )
            for suffix, width in widths.items()
            for column in schema.categorical
        ]
        self.bags = EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
        self.dense = BareDense(head, names, precision)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.dense(self.bags(batch.ids), batch)


class BareDense(nn.Module):
    """A head and the log loss; a separate module, because the pipeline traces the one that holds the tables."""

    def __init__(self, head: CTRHead, names: Sequence[str], precision: torch.dtype) -> None:
        super().__init__()
        self.head, self.names, self.precision = head, names, precision

    def forward(self, pooled: KeyedTensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        by_key, twice = pooled.to_dict(), self.head.uses_first_order  # a feature of two tables has two keys
        keys = [f"{name}@{name}" if twice else name for name in self.names]
        inputs = [torch.stack([by_key[key] for key in keys], dim=1), batch.dense]
        if twice:
            first_order = [by_key[f"{key}_first_order"].mean(dim=1) for key in keys]
            inputs.append(torch.stack(first_order, dim=1))
        with torch.autocast(batch.dense.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            logits = self.head(*inputs).float()
        loss = F.binary_cross_entropy_with_logits(logits, batch.labels)
        return loss, loss.detach()


def bare_steps(
    config: RunConfig, schema: Schema, batches: Sequence[Batch], bench: Bench, precision: torch.dtype
) -> Callable[[], object]:
    """Build the loop; return what takes its next step.

    Args:
        config: Configuration whose head and embedding dimension are used.
        schema: Schema of the batches.
        batches: Batches in memory, repeated without end.
        bench: Where it runs. On the CPU, where fbgemm fuses no Adam, tables are updated by row-wise Adagrad.
        precision: Type for autocast of the head; float32: no autocast.
    """
    device = context_of(bench).device
    model = BareModel(config, schema, precision)
    model.dense.to(device)
    kind = torch.optim.Adam if device.type == "cuda" else RowWiseAdagrad
    apply_optimizer_in_backward(kind, model.bags.parameters(), {"lr": 0.001})
    sharded = DistributedModelParallel(model, device=device)
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(sharded.named_parameters())),
        lambda parameters: torch.optim.Adam(parameters, lr=0.001, fused=True),
    )
    optimizer = CombinedOptimizer([sharded.fused_optimizer, dense])
    sharded.train()
    pipeline = TrainPipelineSparseDist(sharded, optimizer, device)
    following = cycle(batches)
    return lambda: pipeline.progress(following)
