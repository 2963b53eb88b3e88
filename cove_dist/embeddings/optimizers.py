"""Optimizers of the tables: fused into the backward pass for sharded tables, ordinary for data-parallel ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torchrec.modules.embedding_modules import EmbeddingCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from cove_dist.config import EmbeddingsConfig, OptimizerConfig, TableOptimizerConfig
from cove_dist.embeddings.fields import Tables, table_modules
from cove_dist.embeddings.frequency_decay import decay_by_frequency
from cove_dist.embeddings.row_decay import RowDecay, decay_looked_up_rows
from cove_dist.embeddings.sharding import table_sharding
from cove_dist.embeddings.sparse_optimizers import SparseAdam, SparseOptimizer, SparseRMSprop
from cove_dist.errors import ConfigError
from cove_dist.torch_compat import apply_optimizer_in_backward

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "sgd": torch.optim.SGD,
    "sparse_adam": torch.optim.Adam,  # of CUDA's fused kernels, which update only looked-up rows
}
SPARSE: dict[str, Callable[..., SparseOptimizer]] = {
    "sparse_adam": SparseAdam,
    "sparse_rmsprop": SparseRMSprop,
}  # on CPU


def fuse_optimizer(tables: Tables, config: EmbeddingsConfig, device_type: str) -> None:
    """Mark every sharded table's parameter for update in the backward pass. Call before sharding.

    Raises:
        ConfigError: The optimizer is not supported for these tables.
    """
    pooled = not isinstance(tables, EmbeddingCollection)
    if pooled and config.optimizer.name in SPARSE and device_type == "cpu":
        raise ConfigError(
            f"embeddings.optimizer.name = {config.optimizer.name}: on cpu for collaborative filtering and"
            " sequential models, not for CTR; allowed: adam, adagrad, rowwise_adagrad, sgd"
        )
    if config.optimizer.name == "sparse_rmsprop" and device_type == "cuda":
        raise ConfigError("embeddings.optimizer.name = sparse_rmsprop: on cpu only; on cuda use adam or sparse_adam")
    sharded = [
        module.weight
        for name, module in table_modules(tables).items()
        if table_sharding(config, name, device_type) != "data_parallel"
    ]
    if sharded:
        apply_optimizer_in_backward(OPTIMIZERS[config.optimizer.name], sharded, _arguments(config.optimizer))


def optimizer_factory(
    config: OptimizerConfig, factors: Mapping[torch.Tensor, torch.Tensor] | None = None
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Return the factory of the ordinary optimizer, for data-parallel parameters.

    Adam and Adagrad use the fused implementation, one pass over memory per parameter, which for a table on CPU takes an
    eighth of the time. Decay of looked-up rows takes another pass over the gradient, to find them, and 8 bytes per row.

    Args:
        config: Settings of the optimizer.
        factors: Factors ``[rows]`` of the weight decay of each row, by table; for decay by frequency.
    """
    row_decay = _row_decay(config, factors or {})
    fused: dict[str, Any] = {"fused": True} if config.name in ("adam", "adagrad") else {}

    def build(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if config.name in SPARSE:
            return SPARSE[config.name](parameters, lr=config.learning_rate, decay=row_decay)
        optimizer = OPTIMIZERS[config.name](parameters, **_arguments(config), **fused)
        if row_decay is not None:
            decay_looked_up_rows(optimizer, row_decay)
        elif _by_frequency(config):
            decay_by_frequency(optimizer, config.weight_decay, factors or {})
        return optimizer

    return build


def _by_frequency(config: OptimizerConfig) -> bool:
    return isinstance(config, TableOptimizerConfig) and config.weight_decay_frequency_power > 0


def _row_decay(config: OptimizerConfig, factors: Mapping[torch.Tensor, torch.Tensor]) -> RowDecay | None:
    if not isinstance(config, TableOptimizerConfig) or config.weight_decay_rows == "all" or not config.weight_decay:
        return None
    return RowDecay(config.weight_decay, compounds=config.name == "sgd", factors=factors)


def _arguments(config: OptimizerConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {"lr": config.learning_rate}
    if config.weight_decay and _row_decay(config, {}) is None and not _by_frequency(config):
        arguments["weight_decay"] = config.weight_decay
    if config.name in ("adagrad", "rowwise_adagrad"):
        arguments["eps"] = 1e-8
    return arguments
