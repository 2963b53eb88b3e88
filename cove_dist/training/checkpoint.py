"""Checkpoints by torch.distributed.checkpoint: written beside training, complete or absent, the best and newest kept.

Layout: ``<run>/checkpoints/step_00000120/`` with the shards, ``.metadata`` and ``meta.json``. While it is written the
folder is called ``step_00000120.partial``; the last act is the rename.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from cove_dist.distributed import DistributedContext, barrier, close_group, open_host_group
from cove_dist.errors import CheckpointError
from cove_dist.evaluation.declarations import higher_is_better
from cove_dist.training.build import TrainState
from data_pipeline.json_files import undefined_as_nan, write_json

_PARTIAL, _META = ".partial", "meta.json"


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint is of, readable without loading it.

    Attributes:
        step: optimizer steps done.
        world_size: of the ranks that wrote it.
        model: what must agree for the weights to fit (`describe_model`).
        metrics: of the validation split at this step; empty for a checkpoint within an epoch.
        progress: the trainer's position.
        data: fingerprint of the prepared data; empty in checkpoints saved before it was kept.
        loader: position within an epoch, for any number of ranks; None at an epoch's end.
    """

    step: int
    world_size: int
    model: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    loader: dict[str, Any] | None = None


class CheckpointFolder:
    """The checkpoints of one run, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def complete(self) -> list[Path]:
        """Return the complete ones, oldest first. Without its ``meta.json`` a folder is no checkpoint."""
        return [path for path in self._steps() if (path / _META).is_file()]

    def newest(self) -> Path | None:
        return next(reversed(self.complete()), None)

    def best(self, metric: str) -> Path | None:
        """The one with the best validation metric, the earliest among equals; `None` if none has it."""
        sign = 1 if higher_is_better(metric) else -1
        scored = [(sign * read_meta(path).metrics.get(metric, math.nan), path) for path in self.complete()]
        scored = [(score, path) for score, path in scored if not math.isnan(score)]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def prune(self, keep: int, metric: str) -> None:
        """Remove all but the newest ``keep`` and the best."""
        kept = {*self.complete()[-keep:], self.best(metric)}
        for path in self.complete():
            if path not in kept:
                (path / _META).unlink()  # first, so that a run killed in between leaves nothing that looks complete
                shutil.rmtree(path)

    def remove_partial(self) -> None:
        """Remove what a killed run left half-written or half-removed."""
        for path in [*self.folder.glob(f"*{_PARTIAL}"), *set(self._steps()).difference(self.complete())]:
            shutil.rmtree(path)

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step_*") if re.fullmatch(r"step_\d+", p.name))


class CheckpointWriter:
    """Saves in the background; collective, so every rank calls it at the same steps.

    Args:
        folder: of the run's checkpoints.
        runtime: of this rank.
        keep, metric: see `CheckpointFolder.prune`.
    """

    def __init__(self, folder: CheckpointFolder, runtime: DistributedContext, keep: int, metric: str) -> None:
        self.files = folder
        self.runtime = runtime
        self.retention = (keep, metric)
        self._group = open_host_group()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if runtime.is_main:
            folder.folder.mkdir(parents=True, exist_ok=True)
            folder.remove_partial()

    def save(self, trainable: TrainState, own: dict[str, Any], meta: CheckpointMeta) -> None:
        """Copy the state now, write it while training goes on. Waits for the save before, if it still runs.

        Args:
            trainable: model, optimizers, schedule.
            own: what this rank keeps for itself.
            meta: the same on every rank.
        """
        self.wait()
        path = self.files.folder / f"step_{meta.step:08d}"
        partial = path.with_name(path.name + _PARTIAL)
        state = trainable_state(trainable) | {f"rank_{self.runtime.rank}": rank_state(own, self.runtime.device)}
        written = dcp.async_save(
            state,
            checkpoint_id=partial,
            process_group=self._group,
            async_stager=BlockingAsyncStager(),  # the default one cannot copy a ShardedTensor
        )
        self._pending = self._executor.submit(self._finish, written, partial, path, meta)

    def _finish(self, written: Any, partial: Path, path: Path, meta: CheckpointMeta) -> None:
        written.result()  # on rank 0 it returns after all ranks have written
        if not self.runtime.is_main:
            return
        write_json(partial / _META, asdict(meta))
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        self.files.prune(*self.retention)

    def wait(self) -> None:
        """Until the save under way is complete on all ranks; raises what it raised."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None
            barrier(self._group)

    def close(self) -> None:
        self.wait()
        self._executor.shutdown()
        close_group(self._group)


def read_meta(path: Path) -> CheckpointMeta:
    """Raises CheckpointError when the checkpoint is not complete."""
    try:
        meta = CheckpointMeta(**json.loads((path / _META).read_text()))
        return replace(meta, metrics=undefined_as_nan(meta.metrics))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a complete checkpoint ({error}). Choose another, or remove it.") from error


def trainable_state(trainable: TrainState) -> dict[str, Any]:
    hook = trainable.epoch_hook
    return {
        "model": trainable.model.state_dict(),
        "optimizer": trainable.optimizer.state_dict(),
        "schedule": trainable.schedule.state_dict(),
        **({} if hook is None else {"epoch_hook": hook.state_dict()}),
    }


def load_model(path: Path, trainable: TrainState, model: dict[str, Any]) -> CheckpointMeta:
    """Load the weights alone, into any sharding and number of ranks. Collective.

    Raises:
        CheckpointError: the checkpoint is incomplete or holds another model.
    """
    meta = read_meta(path)
    check_same_model(path, meta, model)
    state = {"model": trainable.model.state_dict()}
    dcp.load(state, checkpoint_id=path)
    trainable.model.load_state_dict(state["model"])
    return meta


def load_trainable(
    path: Path, trainable: TrainState, runtime: DistributedContext, model: dict[str, Any]
) -> tuple[CheckpointMeta, dict[str, Any] | None]:
    """Load all that training needs to go on. Collective.

    Returns:
        The checkpoint's meta, and what this rank kept for itself: `None` if another number of ranks wrote it (then the
        random generators keep their state too).
    """
    meta = read_meta(path)
    check_same_model(path, meta, model)
    trainable.create_optimizer_state()
    state = trainable_state(trainable)
    same_ranks = meta.world_size == runtime.world_size
    key = f"rank_{runtime.rank}"
    if same_ranks:
        state[key] = rank_state(None, runtime.device)
    dcp.load(state, checkpoint_id=path)
    trainable.model.load_state_dict(state["model"])
    trainable.optimizer.load_state_dict(state["optimizer"])
    trainable.set_schedule_step(state["schedule"]["last_epoch"])
    if trainable.epoch_hook is not None:
        trainable.epoch_hook.load_state_dict(state["epoch_hook"])
    if not same_ranks:
        return meta, None
    set_random_state(state[key]["random"], runtime.device)
    return meta, pickle.loads(state[key]["own"])


def check_same_model(path: Path, meta: CheckpointMeta, model: dict[str, Any]) -> None:
    """Raises CheckpointError naming every difference between the checkpoint's model and this run's."""
    theirs = json.loads(json.dumps(meta.model))
    ours = json.loads(json.dumps(model))
    differences = [
        f"{key}: {theirs.get(key)} there, {ours.get(key)} here"
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    ]
    if differences:
        raise CheckpointError(
            f"{path}: checkpoint of another model: {'; '.join(differences)}."
            " Use its configuration, or another output folder."
        )


def rank_state(own: dict[str, Any] | None, device: torch.device) -> dict[str, Any]:
    """What each rank keeps for itself. It is of no fixed form, so it goes as bytes."""
    return {"own": pickle.dumps(own), "random": random_state(device)}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
