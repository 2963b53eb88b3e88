"""Files of a finished run for other programs: embeddings, a FAISS index, and the model as a self-contained program.

Layout, by kind; one kind is written into ``output``, several into a folder in it each::

    codes/       see `cove_dist.inference.codes`
    embeddings/  <entity>.parquet: original_id, embedding; embeddings.safetensors: <entity> [n, d], in the same order
    index/       item.faiss, inner products; item.parquet: position in the index, original_id
    model/       *.pt2, by torch.export; model.json; ids/: see `cove_dist.inference.programs`
    onnx/        *.onnx, and the same

Every folder has ``export.json``: checkpoint, precision, and for rounded tables the metrics with and without rounding.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from cove_dist.config.composition import load_settings
from cove_dist.config.overrides import key_of
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.embeddings.serving import Precision, StoredRows
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import is_metric
from cove_dist.faults.outputs import output_folder
from cove_dist.inference.codes import ExportConfig, export_codes, find_codes
from cove_dist.inference.programs import require_onnx, write_programs
from cove_dist.inference.session import Session
from data_pipeline.folders import replaced_folder
from data_pipeline.json_files import write_json
from data_pipeline.schema import ENTITIES

ABOUT_FILE = "export.json"
ROUNDED_KINDS = ("embeddings", "model", "onnx")  # those with tables of a chosen precision


def export_run(overrides: Sequence[str]) -> list[Path]:
    """Write the requested kinds, each into its folder, all of them or none. Collective.

    Returns:
        The written folders; empty on ranks other than 0.

    Raises:
        ConfigError, CheckpointError, DataError: The run does not exist, a folder holds other files or cannot be
            written to, or the model does not support a kind.
    """
    request = load_settings(ExportConfig, "export", overrides)
    kinds = tuple(dict.fromkeys(request.what))
    check_kinds(kinds, request.precision)
    if "codes" not in kinds and "batch_size" in map(key_of, overrides):
        raise ConfigError(f"batch_size = {request.batch_size}: acts on what=[codes]; remove it")
    if kinds == ("codes",):
        return [folder for folder in (export_codes(overrides),) if folder is not None]
    several = len(kinds) > 1 and request.output is not None
    folders = {kind: Path(request.output or Path(request.run) / kind) / (kind if several else "") for kind in kinds}
    for kind in (kind for kind in kinds if kind != "codes"):
        output_folder(folders[kind], None, ABOUT_FILE, "export of cove")
    if "codes" in kinds:
        find_codes(request, str(folders["codes"]))
    session = request.session()
    with ExitStack() as written:  # folders get their names when all kinds are written
        with process_group(request.device) as context:
            if context.world_size > 1:
                raise ConfigError(f"what = {list(kinds)}: for one process; under torchrun what=[codes] only")
            facts = {"checkpoint": session.checkpoint.name, "precision": request.precision}
            if request.precision != "float32":
                facts |= rounding_loss(session, context, request.precision)
            for kind in (kind for kind in kinds if kind != "codes"):
                target = written.enter_context(replaced_folder(folders[kind]))
                of_kind = WRITERS[kind](session, target, precision=request.precision)
                write_json(target / ABOUT_FILE, {**facts, **of_kind})
        if "codes" in kinds:
            same = [override for override in overrides if key_of(override) not in ("what", "output")]
            export_codes([*same, f"output={folders['codes']}"])
    return list(folders.values())


def check_kinds(kinds: Sequence[str], precision: Precision) -> None:
    """Raise ConfigError unless something is exported, and every kind has tables to round if these are to be rounded."""
    if not kinds:
        raise ConfigError("what = []: nothing to export; allowed: codes, embeddings, index, model, onnx")
    exact = [kind for kind in kinds if kind not in ROUNDED_KINDS]
    if precision != "float32" and exact:
        raise ConfigError(
            f"precision = {precision}: acts on {', '.join(ROUNDED_KINDS)}; export {', '.join(exact)} by another command"
        )
    if "onnx" in kinds:
        require_onnx()
    if "index" in kinds and importlib.util.find_spec("faiss") is None:
        raise ConfigError("what = [index]: FAISS is not installed; pip install 'cove-dist[faiss]'")


def rounding_loss(session: Session, context: DistributedContext, precision: Precision) -> dict[str, Any]:
    """Evaluate the exact and the rounded tables, on the test split if the data have one, else on validation.

    Returns:
        The split, and by metric: its value with float32 tables, with rounded ones, and the change.
    """
    split = "test" if session.schema.has_split("test") else "validation"
    exact, rounded = (session.inference.evaluate(split, context, each) for each in ("float32", precision))
    metrics = {
        name: {"float32": exact[name], precision: rounded[name], "change": rounded[name] - exact[name]}
        for name in exact
        if is_metric(name)
    }
    return {"split": split, "metrics": metrics}


def write_embeddings(session: Session, folder: Path, precision: Precision) -> dict[str, object]:
    """Write the embeddings of all entities of the model.

    Parquet has no bfloat16: rounded values are float32 there, and bfloat16 in the safetensors file. int8 values have a
    column ``scale`` in Parquet and a tensor ``<entity>.scale [n, 1]`` in the safetensors file.
    """
    tensors: dict[str, torch.Tensor] = {}
    for entity in (entity for entity in ENTITIES if entity in session.inference.entities()):
        stored = StoredRows.of(torch.from_numpy(session.inference.vectors(entity)), precision)
        tensors[entity] = stored.values.contiguous()
        shown = stored.values.float() if precision == "bfloat16" else stored.values
        flat = pa.array(shown.numpy().reshape(-1))
        columns = {"embedding": pa.FixedSizeListArray.from_arrays(flat, shown.shape[1])}
        if stored.scale is not None:
            tensors[f"{entity}.scale"] = stored.scale.contiguous()
            columns["scale"] = pa.array(stored.scale.numpy().reshape(-1))
        table = pa.table({"original_id": session.seen_ids(entity), **columns})
        pq.write_table(table, folder / f"{entity}.parquet", compression="zstd")
    (folder / "embeddings.safetensors").write_bytes(save(tensors, {"precision": precision}))
    return {"entities": {name: list(each.shape) for name, each in tensors.items() if not name.endswith(".scale")}}


def write_index(session: Session, folder: Path, precision: Precision) -> dict[str, object]:
    """Write a flat inner-product index of the items seen in training.

    Raises:
        ConfigError: The score of the model is not an inner product.
    """
    keys = session.inference.item_keys()
    import faiss

    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(np.ascontiguousarray(keys, np.float32))
    faiss.write_index(index, str(folder / "item.faiss"))
    ids = session.items.original[: len(keys)]
    pq.write_table(pa.table({"position": np.arange(len(keys)), "original_id": ids}), folder / "item.parquet")
    return {"items": len(keys), "dim": keys.shape[1], "metric": "inner product"}


WRITERS: dict[str, Callable[..., dict[str, object]]] = {
    "embeddings": write_embeddings,
    "index": write_index,
    "model": partial(write_programs, form="torch"),
    "onnx": partial(write_programs, form="onnx"),
}
