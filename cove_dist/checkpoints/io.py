"""Saving and loading checkpoints: written in the background during training, complete or absent, verified."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.stateful import Stateful

from cove_dist.checkpoints.files import PARTIAL, CheckpointFolder, CheckpointMeta, read_meta, step_name
from cove_dist.checkpoints.manifest import verify
from cove_dist.checkpoints.rank_state import decode, encode, random_state, rank_file, set_random_state
from cove_dist.checkpoints.storage import CheckpointStorageWriter, load_state
from cove_dist.distributed import DistributedContext, barrier, close_group, open_host_group, world
from cove_dist.errors import CheckpointError, DiskFullError
from cove_dist.faults.full_disk import FullDiskPolicy
from data_pipeline.full_disk import describe, is_full

_SLOWEST_SAVE = timedelta(minutes=30)  # of one rank after another

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves checkpoints in the background. Collective: every rank calls it at the same steps.

    Args:
        folder: Folder of the run's checkpoints.
        context: Context of this rank.
        keep, metric: As in `CheckpointFolder.prune`.
        step: Step at which the run continues; later checkpoints and damaged ones are set aside.
        policy: Policy for a full disk; earlier checkpoints are kept in any case.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        context: DistributedContext,
        keep: int,
        metric: str,
        step: int = 0,
        policy: FullDiskPolicy | None = None,
    ) -> None:
        self.files = folder
        self._policy = policy or FullDiskPolicy()
        self._failed: BaseException | None = None  # why the last save is incomplete
        self.context = context
        self.retention = (keep, metric)
        self._group = open_host_group(_SLOWEST_SAVE)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if context.is_main:
            folder.folder.mkdir(parents=True, exist_ok=True)
            folder.remove_partial()
            for path in folder.set_aside(step):
                logger.warning("Kept as %s, which is not used; remove it when you no longer need it", path)

    def save(self, state: dict[str, Any], rank_state: dict[str, Any], meta: CheckpointMeta) -> None:
        """Copy the state now and write it in the background; wait first for the previous save if it is still running.

        Args:
            state: Tensors of the model and the optimizers, sharded or data-parallel, as nested mappings.
            rank_state: State of this rank other than its random generators; see `rank_state.encode`.
            meta: Description of the checkpoint, the same on every rank.
        """
        self.wait()
        self._failed = None
        path = self.files.folder / step_name(meta.step)
        partial = path.with_name(path.name + PARTIAL)
        encoded = encode({"state": rank_state, "random": random_state(self.context.device)})
        written = dcp.async_save(
            state,
            storage_writer=CheckpointStorageWriter(partial, self.context.rank, encoded, meta),
            process_group=self._group,
            async_stager=BlockingAsyncStager(),  # the default one cannot copy a ShardedTensor
        )
        self._pending = self._executor.submit(self._finish, written, partial, path)

    def _finish(self, written: Any, partial: Path, path: Path) -> None:
        try:
            written.result()  # on rank 0 it returns after all ranks have written
        except (Exception, dcp.CheckpointException) as error:  # CheckpointException is not an Exception
            full = is_full(error, partial)
            if self.context.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            if full:
                raise DiskFullError(str(partial)) from error
            raise CheckpointError(f"{path}: could not be saved: {str(error).splitlines()[-1]}") from error
        if not self.context.is_main:
            return
        self.files.replace(path, partial)
        self.files.prune(*self.retention)

    def poll(self) -> None:
        """Check, without waiting, whether the current save failed.

        Raises:
            DiskFullError: The disk is full and the policy is to stop.
            CheckpointError: The save failed for another reason.
        """
        if self._pending is not None and self._pending.done() and self._failed is None:
            self._failed = self._pending.exception()
            if isinstance(self._failed, DiskFullError):
                self._policy.handle(self.files.folder, "training continues without this checkpoint", self._failed)
            elif self._failed is not None:
                raise self._failed

    def wait(self) -> None:
        """Wait until the current save has ended on all ranks; raise as `poll`."""
        if self._pending is not None:
            wait([self._pending])
            self.poll()
            self._pending = None
            barrier(self._group)

    def close(self) -> None:
        """Wait for the last save.

        Raises:
            DiskFullError: The last save is incomplete.
        """
        self.wait()
        self._executor.shutdown()
        close_group(self._group)
        if self._failed is not None:
            raise DiskFullError(f"{describe(self.files.folder)}: the last checkpoint is missing") from self._failed


def newest_sound(files: CheckpointFolder) -> Path | None:
    """Return the newest checkpoint whose files all match its manifest; None if there is none. Collective.

    Every rank returns the same one. Damaged ones are skipped with a warning.

    Raises:
        CheckpointError: All checkpoints are damaged.
    """
    names = world().gather_objects([path.name for path in files.steps()])[0]
    for name in reversed(names):
        try:
            verify(files.folder / name)
            read_meta(files.folder / name)
            return files.folder / name
        except CheckpointError as error:
            logger.warning("%s", error)
            logger.warning("Checkpoint %s is damaged; trying the previous one", name)
    if names:
        raise CheckpointError(
            f"{files.folder}: all {len(names)} checkpoints are damaged. Restore one, or remove the run folder and train"
            " again"
        )
    return None


def load_weights(path: Path, module: nn.Module, model: dict[str, Any]) -> CheckpointMeta:
    """Verify a checkpoint and load only its weights, into any sharding and number of ranks.

    Collective if there is a process group.

    Args:
        path: The checkpoint.
        module: A task's model, sharded or unsharded.
        model: As in `check_same_model`.

    Raises:
        CheckpointError: The checkpoint is incomplete or damaged, or holds another model.
    """
    meta = read_meta(path)
    check_same_model(path, meta, model)
    verify(path)
    state = {"model": module.state_dict()}
    load_state(path, state)
    module.load_state_dict(state["model"])
    return meta


def load_training_state(
    path: Path, train_state: Stateful, context: DistributedContext, model: dict[str, Any]
) -> tuple[CheckpointMeta, list[dict[str, Any]]]:
    """Load everything that training needs to continue from a verified checkpoint (`newest_sound`). Collective.

    Args:
        path: The checkpoint.
        train_state: Model and optimizers, whose states have the shapes of the checkpoint.
        context: Context of this rank.
        model: As in `check_same_model`.

    Returns:
        The checkpoint's meta, and the state of this rank. If another number of ranks wrote it, the states of all of
        them are divided among the ranks, so that a rank has any number of states, and the random generators keep their
        state.

    Raises:
        CheckpointError: The checkpoint holds another model, or is malformed.
    """
    meta = read_meta(path)
    check_same_model(path, meta, model)
    state = train_state.state_dict()
    load_state(path, state)
    train_state.load_state_dict(state)
    ranks = range(context.rank, meta.world_size, context.world_size)
    saved = [decode(path / rank_file(rank)) for rank in ranks]
    if meta.world_size == context.world_size:
        set_random_state(saved[0]["random"], context.device)
    return meta, [each["state"] for each in saved]


def check_same_model(path: Path, meta: CheckpointMeta, model: dict[str, Any]) -> None:
    """Raise CheckpointError naming every difference between the checkpoint's model and this run's."""
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
