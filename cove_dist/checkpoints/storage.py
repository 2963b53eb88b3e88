"""Storage of torch.distributed.checkpoint with a manifest, and with reading that runs no code.

The stock reader unpickles ``.metadata`` and every non-tensor value without restrictions, so an untrusted checkpoint
could run code. Here ``.metadata`` may name only the few classes that it needs, and all values are tensors, which are
read by ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import WriteResult
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem, SavePlan, SavePlanner
from torch.futures import Future

from cove_dist.checkpoints.files import META, CheckpointMeta
from cove_dist.checkpoints.manifest import Files, describe_file, read_manifest, write_manifest, write_synced
from cove_dist.checkpoints.rank_state import rank_file
from cove_dist.errors import CheckpointError
from data_pipeline.json_files import to_json

_METADATA = ".metadata"
_STORAGE = "torch.distributed.checkpoint.metadata"
_CLASSES = {
    **{(_STORAGE, name): getattr(dcp.metadata, name) for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    )},
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): dcp.filesystem._StorageInfo,
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )},
}  # fmt: skip


class CheckpointStorageWriter(dcp.FileSystemWriter):
    """Writes the shards, the per-rank state, the description of the checkpoint, and last the manifest.

    Args:
        folder: Folder to write to.
        rank: Rank of this process.
        rank_state: Encoded state of this rank (loader, random generators).
        meta: Description of the checkpoint, the same on every rank.
    """

    def __init__(self, folder: Path, rank: int, rank_state: bytes, meta: CheckpointMeta) -> None:
        super().__init__(folder)
        self._folder, self._rank_state, self._meta = folder, rank_state, meta
        self._number = rank

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(save_id=self.save_id)  # the default contains the folder's path

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[Any]]:
        written: list[Any] = super().write_data(plan, planner).wait()
        write_synced(self._folder / rank_file(self._number), self._rank_state)
        names = [rank_file(self._number), *(path.name for path in self._folder.glob(f"__{self._number}_*"))]
        future: Future[list[Any]] = Future()
        future.set_result([*written, _described(self._folder, names)])
        return future

    def finish(self, metadata: Metadata, results: list[list[Any]]) -> None:
        """Write the description and the manifest; called on rank 0 after all ranks have written."""
        shards = [[each for each in result if isinstance(each, WriteResult)] for result in results]
        super().finish(metadata, shards)
        write_synced(self._folder / META, (to_json(asdict(self._meta), indent=2) + "\n").encode())
        files = _described(self._folder, [_METADATA, META])
        for result in results:
            files |= result[-1]
        write_manifest(self._folder, files)


def _described(folder: Path, names: Iterable[str]) -> Files:
    return {name: describe_file(folder / name) for name in names}


class _Reader(dcp.FileSystemReader):
    """Reads shards by metadata that were read by `read_metadata`: the stock reader would unpickle them."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


class _Planner(dcp.DefaultLoadPlanner):
    """Reads tensors only."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise CheckpointError(f"{read_item.dest_index.fqn}: stored as a pickled object, not as a tensor: not read")


def load_state(folder: Path, state: dict[str, Any]) -> None:
    """Load a verified checkpoint into a state of the same keys. Collective.

    Raises:
        CheckpointError: The checkpoint does not hold this state, or holds objects that are not allowed.
    """
    reader = _Reader(folder, read_metadata(folder))
    try:
        dcp.load(state, storage_reader=reader, planner=_Planner())
    except dcp.CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        if isinstance(reason, CheckpointError):
            raise reason from None
        text = " ".join(str(reason).split())
        raise CheckpointError(f"{folder}: cannot be loaded: {type(reason).__name__}: {text}") from error


def read_metadata(folder: Path) -> Metadata:
    """Read ``.metadata``: the tensors of a checkpoint and their files.

    Raises:
        CheckpointError: The file is malformed, or names a disallowed class or a file outside the checkpoint.
    """
    path = folder / _METADATA
    try:
        with path.open("rb") as file:
            metadata = _MetadataUnpickler(file).load()
        _check_metadata(metadata, read_manifest(folder))
    except CheckpointError:
        raise
    except Exception as error:  # a malformed stream can raise anything
        raise CheckpointError(
            f"{path}: not the metadata of a checkpoint: {error}. Do not use files of this run folder"
            " unless you know where they come from"
        ) from error
    return metadata


def _check_metadata(metadata: Metadata, files: Files) -> None:
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"it is a {type(metadata).__name__}")
    for entry in metadata.storage_data.values():
        if entry.relative_path not in files:
            raise pickle.UnpicklingError(f"it refers to {entry.relative_path!r}, which is not a file of the checkpoint")
        if entry.transform_descriptors:
            raise pickle.UnpicklingError(f"it requires the transforms {entry.transform_descriptors}")


_build: Callable[[Any], None] = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class _MetadataUnpickler(pickle._Unpickler):
    """Unpickles listed classes only. Python implementation, because the C one can set attributes of classes."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not allowed")
        return _CLASSES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to the object {pid!r}, which is not allowed")

    def load_build(self: Any) -> None:
        """Set the attributes of an instance, never of a class or a function."""
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(f"it changes {self.stack[-2]!r}, which is not allowed")
        _build(self)

    dispatch[pickle.BUILD[0]] = load_build
