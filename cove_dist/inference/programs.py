"""Exported programs of a model, by `torch.export` or as ONNX, with their ids; each is compared with the model.

Layout::

    model.pt2 or model.onnx   scores; query.pt2 or query.onnx: the query of a sequence, for sequential models
    model.json                inputs, outputs and precision
    ids/<column>.parquet      id, original_id
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cove_dist.embeddings.serving import Precision
from cove_dist.errors import ConfigError
from cove_dist.inference.session import Session
from cove_dist.tasks.inference import Program
from data_pipeline.id_tables import id_table_path
from data_pipeline.json_files import write_json

Format = Literal["torch", "onnx"]
TOLERANCE = 1e-5  # of an output, relative to its largest value or 1
SUFFIX: dict[Format, str] = {"torch": "pt2", "onnx": "onnx"}


def write_programs(session: Session, folder: Path, form: Format, precision: Precision) -> dict[str, object]:
    """Write the programs of a run, and compare each with the model.

    Returns:
        For ``export.json``: files, and the largest difference of each program from the model.

    Raises:
        ConfigError: A package is missing, the exporter does not support the model, or a program differs from it.
    """
    if form == "onnx":
        require_onnx()
    programs, name = session.inference.programs(precision), session.config.model.name
    files, differences = {}, {}
    for part, program in programs.items():
        file = f"{part}.{SUFFIX[form]}"
        try:
            run = SAVERS[form](exported_program(program), program, folder / file)
        except OSError:  # of the disk, not of the exporter
            raise
        except Exception as error:  # the exporters raise many kinds
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ConfigError(f"what: {name} cannot be exported to {file}: {reason}. Export embeddings") from error
        files[part], differences[part] = file, largest_difference(program, run)
        if not differences[part] <= TOLERANCE:
            raise ConfigError(f"what: {file} differs from {name} by {differences[part]:.1e}; allowed: {TOLERANCE:.0e}")
    columns = {column.name: column for program in programs.values() for column in program.columns}
    (folder / "ids").mkdir()
    for column in columns.values():
        shutil.copyfile(id_table_path(session.data, column.table_name), folder / "ids" / f"{column.name}.parquet")
    first = programs["model"]
    facts = {
        "inputs": describe_inputs(first),
        "ids": [asdict(column) for column in columns.values()],
        "unseen": _UNSEEN,
        "outputs": {files[part]: {"name": each.output, "meaning": each.meaning} for part, each in programs.items()},
        "tables": precision,
        "computes_in": "float32",
    }
    write_json(folder / "model.json", facts)
    return {"files": list(files.values()), "largest_difference": differences}


_UNSEEN = (
    "ids from num_seen on have the row num_seen, which is trained only by ids rarer than data.min_count or with"
    " embeddings.id_dropout, or set by embeddings.unseen=codes; of a column with buckets > 0, the row"
    " num_seen + h % buckets, where h is the little-endian number in the last 8 bytes of the MD5 of the original id as"
    " UTF-8 text"
)


def describe_inputs(program: Program) -> dict[str, dict[str, Any]]:
    """Return the inputs of a program, in order, for ``model.json``."""
    return {
        name: {
            "shape": list(each.shape),
            "dtype": str(each.example.dtype).removeprefix("torch."),
            "meaning": each.meaning,
        }
        for name, each in program.inputs.items()
    }


def exported_program(program: Program) -> torch.export.ExportedProgram:
    """Export a program, with sizes that may vary."""
    sizes = {size for each in program.inputs.values() for size in each.shape if isinstance(size, str)}
    dims = {size: torch.export.Dim(size, min=1) for size in sizes}
    shapes = [
        {axis: dims[size] for axis, size in enumerate(each.shape) if isinstance(size, str)}
        for each in program.inputs.values()
    ]
    examples = tuple(each.example for each in program.inputs.values())
    with torch.no_grad(), quiet("torch.onnx", "torch.export"):
        return torch.export.export(program.module, examples, dynamic_shapes=tuple(shapes), strict=False)


Run = Callable[..., np.ndarray]


def saved_torch(exported: torch.export.ExportedProgram, program: Program, path: Path) -> Run:
    """Save a program; return a function that runs what was saved."""
    with quiet("torch.export"):
        torch.export.save(exported, path)
        loaded = torch.export.load(path).module()

    def run(*inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return loaded(*inputs).numpy()

    return run


def saved_onnx(exported: torch.export.ExportedProgram, program: Program, path: Path, threads: int = 0) -> Run:
    """Convert a program to ONNX; return a function that runs it by ONNX Runtime on these threads, 0: one a core."""
    import onnxruntime

    names = list(program.inputs)
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        converted = torch.onnx.export(
            exported, dynamo=True, input_names=names, output_names=[program.output], verbose=False
        )
    assert converted is not None, "torch.onnx.export returns a program with dynamo=True"
    converted.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    read = {each.name for each in session.get_inputs()}

    def run(*inputs: torch.Tensor) -> np.ndarray:
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True) if name in read}
        return session.run(None, given)[0]

    return run


SAVERS: dict[Format, Callable[[torch.export.ExportedProgram, Program, Path], Run]] = {
    "torch": saved_torch,
    "onnx": saved_onnx,
}


def largest_difference(program: Program, run: Run) -> float:
    """Compare a saved program with its module on the examples, on one row and on many.

    Returns:
        The largest difference, relative to the largest finite output or 1; nan if infinities are in other places.
    """
    examples, largest = [each.example for each in program.inputs.values()], 0.0
    for count in (1, len(examples[0]), 7):
        inputs = [torch.cat([each] * 3)[:count] for each in examples]
        with torch.no_grad():
            expected = program.module(*inputs).numpy()
        found = run(*inputs)
        finite = np.isfinite(expected)
        if found.shape != expected.shape or not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
            return float("nan")
        scale = max(1.0, float(np.abs(expected[finite]).max(initial=0)))
        largest = max(largest, float(np.abs(found[finite] - expected[finite]).max(initial=0)) / scale)
    return largest


def require_onnx() -> None:
    """Raise ConfigError if a package of the extra ``onnx`` is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"what = [onnx]: {', '.join(missing)} not installed; pip install 'cove-dist[onnx]'")


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Leave out the warnings of exporters about packages that they do without, and about torch's own code."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
