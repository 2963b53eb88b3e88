"""Sparse optimizers for data-parallel tables on CPU: cost scales with the batch, not the table.

They update only the rows that a step looked up. Ranks of one host have one table in memory that they share, and each
updates a part of the rows (`SharedTables`). Elsewhere, instead of an all-reduce of the whole table's gradient, the
gradients of each rank's rows are gathered on all ranks, averaged and applied, so that the replicas stay identical.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.distributed import world
from cove_dist.embeddings.row_decay import RowDecay, looked_up
from cove_dist.embeddings.rows import Rows, sum_by_row
from cove_dist.embeddings.shared_tables import SharedTables
from cove_dist.torch_compat import whole_parameter


class LookUpRows(torch.autograd.Function):
    """Looks up ``weights [R * d], ids [N] -> rows [N, d]``; backward stores ``(ids, gradients)`` for the next step."""

    @staticmethod
    def forward(ctx, weights: torch.Tensor, ids: torch.Tensor, dim: int) -> torch.Tensor:
        ctx.weights, ctx.ids = weights, ids
        return F.embedding(ids, weights.detach().view(-1, dim))

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[None, None, None]:
        _kept(ctx.weights).append((ctx.ids, gradient))
        return None, None, None


class SparseOptimizer(torch.optim.Optimizer, ABC):
    """Sparse optimizer of tables ``[rows, d]``, each a slice of one parameter with all tables. A step is collective.

    Args:
        params: Tables.
        defaults: Defaults of the optimizer, including ``lr``.
        decay: Weight decay of looked-up rows; None: no decay.
    """

    def __init__(self, params: Iterable[nn.Parameter], defaults: dict[str, Any], decay: RowDecay | None) -> None:
        super().__init__(params, defaults)
        self._decay = decay
        self._shared: dict[int, SharedTables | None] = {}  # by the parameter of all tables

    @abstractmethod
    def new_state(self, table: nn.Parameter) -> dict[str, Any]:
        """Return the initial state of a table, by name: zeros."""

    @abstractmethod
    def update(self, table: nn.Parameter, ids: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Update the distinct rows ``ids [N]`` of a table with their gradient ``[N, d]``, which may be overwritten."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the rows that were looked up since the last step; see `torch.optim.Optimizer.step`. Collective."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update_tables()
        return loss

    @torch.no_grad()
    def _update_tables(self) -> None:
        wholes: dict[int, Rows] = {}
        for group in self.param_groups:
            for table in group["params"]:
                whole, offset = whole_parameter(table)
                if id(whole) not in wholes:
                    wholes[id(whole)] = self._averaged(whole, table.shape[1])
                ids, gradients = wholes[id(whole)]
                first = offset // table.shape[1]
                ends = torch.tensor([first, first + len(table)], device=ids.device)
                start, stop = torch.searchsorted(ids, ends).tolist()
                self._update_rows(table, ids[start:stop] - first, gradients[start:stop], group, self._shared[id(whole)])
        for shared in map(self._shared.get, wholes):
            if shared is not None:
                shared.close_step()

    def _update_rows(
        self,
        table: nn.Parameter,
        rows: torch.Tensor,
        gradient: torch.Tensor,
        group: dict[str, Any],
        shared: SharedTables | None,
    ) -> None:
        state = self.state[table]
        if not state:
            new = self.new_state(table) | ({} if self._decay is None else self._decay.new_state(table))
            state |= new if shared is None else shared.share_state(new)
        if self._decay is not None:
            present = looked_up(gradient)
            decayed = self._decay.add_to(gradient[present], table, rows[present], state, group["lr"])
            gradient = gradient.index_copy(0, present, decayed)
        self.update(table, rows, gradient, group)

    def _averaged(self, whole: torch.Tensor, dim: int) -> Rows:
        """Return the mean over ranks of the stored gradients, by row, and clear them. Collective.

        With shared tables these are the rows of this rank's part.
        """
        kept = _kept(whole) or [(whole.new_empty(0, dtype=torch.int64), whole.new_empty(0, dim))]
        single = len(kept) == 1  # not copied: a copy takes as long as the sum
        ids, gradients = kept[0] if single else map(torch.cat, zip(*kept, strict=True))
        _kept(whole).clear()
        if id(whole) not in self._shared:
            self._shared[id(whole)] = self._share(whole, dim)
        shared = self._shared[id(whole)]
        if shared is not None:
            return shared.part(ids, gradients)
        rows = whole.numel() // dim
        return _mean_over_ranks(*sum_by_row(ids, gradients, rows), rows)

    def _share(self, whole: torch.Tensor, dim: int) -> SharedTables | None:
        tables = (table for group in self.param_groups for table in group["params"])
        own = [table for table in tables if whole_parameter(table)[0] is whole]
        return SharedTables.open(whole, own, dim)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for table in group["params"]:
                _kept(whole_parameter(table)[0]).clear()


class SparseAdam(SparseOptimizer):
    """Adam (Kingma and Ba, 2015) as in `torch.optim.SparseAdam`: a row's moments do not change between look-ups.

    The second moment of a rare row is as large as that of a frequent one, and a look-up moves the row by ``lr``; in
    dense Adam its second moment decays between look-ups, and a look-up moves it by up to ``lr / sqrt(1 - beta2)``.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        decay: RowDecay | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps}, decay)

    def new_state(self, table: nn.Parameter) -> dict[str, Any]:
        first, second = (torch.zeros_like(table.data) for _ in range(2))
        return {"step": torch.tensor(0.0, device="cpu"), "exp_avg": first, "exp_avg_sq": second}

    def update(self, table: nn.Parameter, ids: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        first = state["exp_avg"].index_select(0, ids).lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"].index_select(0, ids).lerp_(gradient.square(), 1 - beta2)
        _set_rows(state["exp_avg"], ids, first)
        _set_rows(state["exp_avg_sq"], ids, second)
        scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        _add_rows(table, ids, first.div_(scale).mul_(-group["lr"] / (1 - beta1**step)))


class SparseRMSprop(SparseOptimizer):
    """Exactly dense Adam with ``beta1 = 0``: RMSprop (Tieleman and Hinton, 2012) with bias correction.

    Without a first moment, a row does not move while it has no gradient; the decay of its second moment by ``beta2``
    per step is applied at its next look-up. Over many steps a gradient moves a row as far as in Adam with momentum.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.001,
        beta2: float = 0.999,
        eps: float = 1e-8,
        decay: RowDecay | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "beta2": beta2, "eps": eps}, decay)

    def new_state(self, table: nn.Parameter) -> dict[str, Any]:
        second = torch.zeros_like(table.data)
        updated = table.data.new_zeros(len(table), dtype=torch.int32)  # step of the last update of the second moment
        return {"step": torch.tensor(0.0, device="cpu"), "exp_avg_sq": second, "updated": updated}

    def update(self, table: nn.Parameter, ids: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        state["step"] += 1
        step, beta2 = int(state["step"]), group["beta2"]
        faded = torch.pow(beta2, step - state["updated"].index_select(0, ids))
        second = state["exp_avg_sq"].index_select(0, ids)
        second.mul_(faded[:, None]).addcmul_(gradient, gradient, value=1 - beta2)
        _set_rows(state["exp_avg_sq"], ids, second)
        state["updated"].index_fill_(0, ids, step)
        scale = second.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        _add_rows(table, ids, gradient.div_(scale).mul_(-group["lr"]))


def _set_rows(table: torch.Tensor, ids: torch.Tensor, rows: torch.Tensor) -> None:
    """Set distinct rows of a table in place: by NumPy, which takes half the time of `torch.Tensor.index_copy_`."""
    table.numpy()[ids.numpy()] = rows.numpy()


def _add_rows(table: nn.Parameter, ids: torch.Tensor, change: torch.Tensor) -> None:
    table.data.index_add_(0, ids, change)  # with ``alpha`` it would take three times as long


def stored_gradients(tables: Iterable[nn.Parameter]) -> Iterator[torch.Tensor]:
    """Yield the gradients ``[N, d]`` of rows that backward passes on this rank stored for the next step, if any."""
    wholes = {id(whole): whole for whole, _ in map(whole_parameter, tables)}
    for whole in wholes.values():
        yield from (gradient for _, gradient in _kept(whole))


def _kept(whole: torch.Tensor) -> list[Rows]:
    """Return the gradients stored by backward passes since the last step, in the order of the look-ups."""
    return vars(whole).setdefault("looked_up", [])


def _mean_over_ranks(ids: torch.Tensor, gradients: torch.Tensor, rows: int) -> Rows:
    """Return the mean over ranks of gradients by row. Collective."""
    ranks = world()
    if ranks.size == 1:
        return ids, gradients
    longest = ranks.longest(ids)
    all_ids, all_gradients = ranks.gather_padded(ids, -1, longest), ranks.gather_padded(gradients, 0.0, longest)
    present = all_ids >= 0
    return sum_by_row(all_ids[present], all_gradients[present] / ranks.size, rows)
