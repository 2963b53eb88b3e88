"""The tensors of a checkpoint: their shapes, and rows that are read from its files without loading whole tensors.

Shapes: ``R`` rows of the tensor, ``n`` rows that are read, ``d`` columns.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from cove_dist.checkpoints.storage import load_state, read_metadata
from cove_dist.errors import CheckpointError

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip entry: lengths of its name and of its extra field


class _Chunk(NamedTuple):
    """A stored part of the tensor: its first row and column, and its values in a mapped file."""

    row: int
    column: int
    values: np.ndarray


class StoredTensors:
    """The tensors of a verified checkpoint.

    Args:
        folder: Folder of the checkpoint.

    Attributes:
        sizes: Shape of every tensor, by name.

    Raises:
        CheckpointError: The description of the tensors is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._metadata = folder, read_metadata(folder)
        entries = self._metadata.state_dict_metadata.items()
        self.sizes = {name: tuple(e.size) for name, e in entries if isinstance(e, TensorStorageMetadata)}

    def rows(self, name: str) -> CheckpointRows:
        """Return the rows of a tensor."""
        return CheckpointRows(self._folder, self._metadata, name)

    def load(self, into: dict[str, Any]) -> None:
        """Load whole tensors, by name, in place. Collective."""
        if into:
            load_state(self._folder, into)


class CheckpointRows:
    """Reads rows of a stored tensor by number, from checkpoints of any sharding and number of ranks.

    The files are mapped into memory: only pages with requested rows are read, and the system may drop them again.

    Args:
        folder: Folder of a verified checkpoint.
        metadata: Its metadata, from `storage.read_metadata`.
        name: Name of the tensor in the metadata.

    Attributes:
        size: Shape of the tensor.

    Raises:
        CheckpointError: The checkpoint does not hold this tensor in the form that this project writes.
    """

    def __init__(self, folder: Path, metadata: Metadata, name: str) -> None:
        entry = metadata.state_dict_metadata.get(name)
        if not isinstance(entry, TensorStorageMetadata):
            raise CheckpointError(f"{folder}: holds no tensor {name}")
        self.size, self._dtype = tuple(entry.size), entry.properties.dtype
        where = {
            tuple(index.offset or (0,) * len(self.size)): info
            for index, info in metadata.storage_data.items()
            if index.fqn == name
        }
        self._chunks = []
        for chunk in entry.chunks:
            info = where[tuple(chunk.offsets)]
            try:
                values = _mapped(folder / info.relative_path, info.offset, info.length, entry.properties.dtype)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
                raise CheckpointError(f"{folder / info.relative_path}: {name} cannot be read: {error}") from error
            row, column = (*chunk.offsets, 0, 0)[:2]
            self._chunks.append(_Chunk(row, column if len(self.size) > 1 else 0, values))

    def rows(self, numbers: np.ndarray, columns: slice = slice(None)) -> torch.Tensor:
        """Return the rows ``numbers [n]``: ``[n, …]``, with some of the columns if the tensor has columns."""
        start, stop, _ = columns.indices(self.size[1] if len(self.size) > 1 else 1)
        shape = (len(numbers), stop - start) if len(self.size) > 1 else (len(numbers),)
        found = torch.empty(shape, dtype=self._dtype, device="cpu").numpy()
        for row, column, values in self._chunks:
            mine = np.flatnonzero((row <= numbers) & (numbers < row + len(values)))
            taken = numbers[mine] - row
            if len(self.size) == 1:
                found[mine] = values[taken]
                continue
            left, right = max(start, column), min(stop, column + values.shape[1])
            if left < right and len(mine):
                found[mine, left - start : right - start] = values[taken, left - column : right - column]
        return torch.from_numpy(found)


def _mapped(path: Path, offset: int, length: int, dtype: torch.dtype) -> np.ndarray:
    """Map a tensor that `torch.save` wrote at an offset of a file."""
    with path.open("rb") as file:
        with zipfile.ZipFile(_Part(file, offset, length)) as archive:
            [entry] = [each for each in archive.infolist() if each.filename.endswith("/data/0")]
            [layout] = [each for each in archive.namelist() if each.endswith("/data.pkl")]
            first, size, stride = _Layout(io.BytesIO(archive.read(layout))).load()
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        file.seek(offset + entry.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    number = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
    data = offset + entry.header_offset + _LOCAL_HEADER.size + name + extra
    last = first + sum((each - 1) * step for each, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, number)
    if (last + 1) * number.itemsize > entry.file_size:
        raise ValueError("its shape needs more values than are stored")
    flat = np.memmap(path, number, "r", data, (last + 1,))
    steps = [each * number.itemsize for each in stride]
    return np.lib.stride_tricks.as_strided(flat[first:], size, steps, writeable=False)


class _Part(io.RawIOBase):
    """A part of a file as a file, for reading."""

    def __init__(self, file: io.BufferedReader, offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._at = file, offset, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        self._at = position + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        self._file.seek(self._offset + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        self._at += len(content)
        return content


class _Layout(pickle.Unpickler):
    """Reads the storage offset, the size and the strides of a saved tensor; runs no code that the file names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (offset, size, stride)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> None:
        return None
