"""The only file that uses APIs of torch and torchrec that are private or differ between the supported versions.

`cove_dist.doctor` lists the supported versions. Modules without torchrec import this file too, so it imports torchrec
only inside the functions that need it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, MutableSequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

# Private in torch 2.11 to 2.14, which have no public name for it; torchrec stores sharded tables in it.
from torch.distributed._shard.sharded_tensor import ShardedTensor

if TYPE_CHECKING:
    from torchrec.distributed.embedding import ShardedEmbeddingCollection
    from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
    from torchrec.distributed.planner import Topology

__all__ = [
    "ShardedTensor",
    "after_backward",
    "all_gather",
    "apply_optimizer_in_backward",
    "inside_backward",
    "lookups_of",
    "reduce_scatter",
    "second_connection",
    "set_fused_step",
    "timeout_of",
    "topology",
    "whole_parameter",
]

# torch 2.13 deprecates all_gather_into_tensor and reduce_scatter_tensor; torch 2.11 does not have the new names.
_ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_gather(whole: torch.Tensor, block: torch.Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Write the blocks of all ranks to ``whole``, in the order of the ranks. Collective.

    Args:
        whole: Output ``[world_size * n, ...]``.
        block: Contiguous input ``[n, ...]``; n is equal on all ranks.
        group: Participating ranks; None for all ranks.
    """
    _ALL_GATHER(whole, block, group=group)


def reduce_scatter(block: torch.Tensor, whole: torch.Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Write this rank's block of the sum of ``whole`` over the ranks to ``block``. Collective.

    Args:
        block: Output ``[n, ...]``.
        whole: Contiguous input ``[world_size * n, ...]``.
        group: Participating ranks; None for all ranks.
    """
    _REDUCE_SCATTER(block, whole, group=group)


def apply_optimizer_in_backward(
    kind: type[torch.optim.Optimizer], parameters: Iterable[torch.Tensor], arguments: dict[str, Any]
) -> None:
    """Update parameters in the backward pass; torchrec fuses an optimizer with it only after this call.

    The call is private in torch 2.11 to 2.14. Its package compiles ten optimizers as it is imported, for 0.3 s.

    Args:
        kind: Class of the optimizer.
        parameters: Parameters that are not sharded yet.
        arguments: Arguments of the optimizer.
    """
    from torch.distributed.optim import _apply_optimizer_in_backward

    _apply_optimizer_in_backward(kind, parameters, arguments)


def topology(**arguments: Any) -> Topology:
    """Build the description of the devices that torchrec's planner places tables on.

    torchrec 1.8 warns about a topology that is built without ``created_by_factory``; torchrec 1.6 has no such argument.

    Args:
        arguments: Arguments of torchrec's `Topology`, except ``created_by_factory``.
    """
    from torchrec.distributed.planner import Topology

    if "created_by_factory" in inspect.signature(Topology).parameters:
        arguments["created_by_factory"] = True
    return Topology(**arguments)


def lookups_of(collection: ShardedEmbeddingCollection | ShardedEmbeddingBagCollection) -> MutableSequence[nn.Module]:
    """Return the look-up modules of a sharded collection, one per kind of sharding, to change in place.

    They are in a private list (torchrec 1.6 to 1.9), which `nn.Module.modules` does not traverse.
    """
    return collection._lookups


def set_fused_step(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Set the number of steps that the fused optimizers of tables have taken; an ordinary optimizer keeps its own.

    A method of torchrec 1.8's optimizers, which is not part of its documented interface. Call it before the first step
    of the optimizer: fbgemm reads the number once.

    Args:
        optimizer: Combined optimizer of a sharded model.
        step: Number of steps.
    """
    if (set_step := getattr(optimizer, "set_optimizer_step", None)) is not None:
        set_step(step)


def whole_parameter(table: nn.Parameter) -> tuple[torch.Tensor, int]:
    """Return the parameter that holds all tables of a group, and the index of a table's first element in it.

    torchrec 1.6 to 1.9 keep both as private attributes of a `TableBatchedEmbeddingSlice`.
    """
    part: Any = table
    return part._original_tensor, part._start_offset


def inside_backward() -> bool:
    """Return whether a backward pass is running; torch 2.11 to 2.14 have no public call for it."""
    return torch._C._current_graph_task_id() != -1  # `torch.utils.checkpoint` makes the same call


def after_backward(function: Callable[[], None]) -> None:
    """Call a function at the end of the running backward pass; `DistributedDataParallel` makes the same call.

    It is private in torch 2.11 to 2.14.
    """
    torch.autograd.Variable._execution_engine.queue_callback(function)


def timeout_of(group: dist.ProcessGroup) -> timedelta:
    """Return the time after which a collective on CPU fails; private in torch 2.11 to 2.14."""
    return group._get_backend(torch.device("cpu")).options._timeout


def second_connection(store: Any) -> dist.Store:
    """Return the same store through a separate connection, so that threads do not wait for each other's requests.

    The type stubs do not have ``clone`` yet.
    """
    return store.clone()
