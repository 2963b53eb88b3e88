"""Moves a checkpoint into a newly built run: rows by original id, everything else as it is.

Rows are read from the mapped files of the checkpoint, a chunk at a time, by the rank that holds them now; no rank needs
a whole table of another sharding plan in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from cove_dist.embeddings.parts import Part, local_parts, table_weights
from cove_dist.embeddings.row_decay import DECAYED, TOTAL
from cove_dist.errors import ConfigError
from cove_dist.tasks.base import TaskModel
from cove_dist.torch_compat import ShardedTensor
from cove_dist.warm_start.matching import Matching
from cove_dist.warm_start.source import Source
from data_pipeline.schema import Schema

_CHUNK_ROWS = 65_536
_STEP, _MOMENTUM = "step", "exp_avg"  # in the state of torch's optimizers

Tensors = dict[str, torch.Tensor | ShardedTensor]


class RowTensor(NamedTuple):
    """A tensor with a row per id: a table, a parameter such as an item bias, or their optimizer state.

    Attributes:
        table: Name of the table whose ids it has.
        parameter: Name of the table or parameter.
        state: Name of the optimizer state; empty for the weights themselves.
    """

    table: str
    parameter: str
    state: str = ""


class Transfer:
    """Moves the weights and the optimizer state of a source into a run. Collective.

    Create the optimizer state and initialize the tables first: new rows keep their values.

    Args:
        source: The run to start from, which fits (`source.check_fits`).
        model: Sharded model of this run.
        state: Tensors of this run's model and optimizers, nested as in a checkpoint.
        schema: Schema of its data.
        matching: Former rows of its tables.
    """

    def __init__(
        self, source: Source, model: TaskModel, state: Mapping[str, Any], schema: Schema, matching: Matching
    ) -> None:
        self._source, self._matching = source, matching
        self._adam = "adam" in source.config.embeddings.optimizer.name
        keys = zip(model.tables.state_dict(), table_weights(model.tables), strict=True)
        self._tables = {f"tables.{key}": table for key, table in keys}
        self._tables |= model.row_parameters(schema)
        self._here = dict(_tensors({key: state[key] for key in ("model", "optimizer")}))
        self._there = {self._identity(name): name for name in source.tensors.sizes}

    @torch.no_grad()
    def run(self) -> None:
        """Move everything.

        Raises:
            ConfigError: A parameter has another shape.
            CheckpointError: The checkpoint does not hold a parameter, or is malformed.
        """
        whole: Tensors = {}
        for name, tensor in self._here.items():
            identity = self._identity(name)
            stored = self._there.get(identity)
            if stored is None and name.startswith("model."):
                raise ConfigError(f"warm_start.run = {self._source.run}: its checkpoint has no parameter {name}")
            if isinstance(identity, RowTensor) and self._has_rows(tensor, identity):
                self._move_rows(tensor, identity, stored)
            elif stored is not None:
                self._check_shape(stored, tensor)
                whole[stored] = tensor
            else:  # an optimizer state that the former optimizer did not store
                tensor.fill_(self._source.steps if name.endswith(f".{_STEP}") else 0)
        self._source.tensors.load(whole)
        self._mark_as_decayed()

    def _identity(self, name: str) -> RowTensor | str:
        """Return what a tensor is, whatever the optimizer's implementation calls its state."""
        for marker, table in self._tables.items():
            at = name.find(f".{marker}")
            rest = name[at + len(marker) + 1 :]
            if at >= 0 and rest[:1] in ("", "."):
                state = rest.rpartition(".")[2]
                state = (_MOMENTUM if self._adam else "sum") if state == "momentum1" else state  # fbgemm's name
                return RowTensor(table, marker, state)
        return name

    def _has_rows(self, tensor: torch.Tensor | ShardedTensor, identity: RowTensor) -> bool:
        size = tensor.size()
        return len(size) > 0 and size[0] >= self._matching.num_rows(identity.table) - 1

    def _check_shape(self, stored: str, tensor: torch.Tensor | ShardedTensor) -> None:
        there, here = self._source.tensors.sizes[stored], tensor.size()
        if tuple(there) != tuple(here):
            raise ConfigError(
                f"warm_start.run = {self._source.run}: {stored} has the shape {list(there)} there, {list(here)} here;"
                " use that run's settings and lengths of sequences, or start without warm_start"
            )

    def _move_rows(self, tensor: torch.Tensor | ShardedTensor, identity: RowTensor, stored: str | None) -> None:
        """Fill this rank's rows that are matched; reset the optimizer state of the others.

        Adam's momentum would move kept rows, which no gradient reaches, for some more steps: it is reset.
        """
        reader = (
            None if stored is None else _Reader(self._source, stored, self._matching.former_num_rows(identity.table))
        )
        num_rows = self._matching.num_rows(identity.table)
        blocks = max(1, tensor.size()[0] // num_rows)
        for part in local_parts(tensor):
            block, first = divmod(part.row, num_rows)  # state of rows is stored block after block of columns
            former = self._matching.former_rows(identity.table, first, first + len(part.values))
            for start in range(0, len(former), _CHUNK_ROWS):
                chunk, values = former[start : start + _CHUNK_ROWS], part.values[start : start + _CHUNK_ROWS]
                known = torch.from_numpy(np.flatnonzero(chunk >= 0)).to(values.device)
                if identity.state:
                    values[torch.from_numpy(chunk < 0).to(values.device)] = 0
                if reader is not None:
                    rows = reader.rows(chunk[chunk >= 0], part, block, blocks)
                    values[known] = rows.to(values.device, values.dtype).view(len(known), *values.shape[1:])
                elif identity.state:
                    values[known] = 0
                if identity.state == _MOMENTUM:
                    kept = self._matching.kept_rows(identity.table)
                    values[max(0, kept.start - first - start) : max(0, kept.stop - first - start)] = 0

    def _mark_as_decayed(self) -> None:
        """Let the decay of new rows start now: they have missed none of the steps before."""
        found = {self._identity(name): tensor for name, tensor in self._here.items()}
        for identity, tensor in found.items():
            if not isinstance(identity, RowTensor) or identity.state != DECAYED:
                continue
            total = found[identity._replace(state=TOTAL)]
            former = self._matching.former_rows(identity.table, 0, len(tensor))
            tensor[torch.from_numpy(former < 0).to(tensor.device)] = float(total)


class _Reader:
    """Reads former rows of one stored tensor, in the form that this run's optimizer has.

    Row-wise optimizers store a number for each row, of column-wise shards one for each row and shard. It is a mean over
    the columns, so that of more columns is the mean over shards.
    """

    def __init__(self, source: Source, stored: str, num_rows: int) -> None:
        self._rows = source.tensors.rows(stored)
        self._num_rows = num_rows
        self._blocks = max(1, self._rows.size[0] // num_rows)

    def rows(self, numbers: np.ndarray, part: Part, block: int, blocks: int) -> torch.Tensor:
        """Return the former rows ``numbers [n]`` for a part of a tensor, which is in a block of several."""
        columns = slice(part.column, part.column + part.values.shape[1]) if part.values.ndim > 1 else slice(None)
        if blocks == self._blocks:
            return self._rows.rows(numbers + block * self._num_rows, columns)
        of_blocks = [self._rows.rows(numbers + each * self._num_rows, columns) for each in range(self._blocks)]
        return torch.stack(of_blocks).mean(dim=0)


def _tensors(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor | ShardedTensor]]:
    """Yield the tensors of a nested state with their names in a checkpoint."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, (torch.Tensor, ShardedTensor)):
            yield f"{prefix}{key}", value
