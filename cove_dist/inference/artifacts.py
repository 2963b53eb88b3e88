"""Files of a finished run for other programs: embeddings, a FAISS index, and the model as a torch-only program.

Layout, by kind; one kind is written into ``output``, several into a folder in it each::

    codes/       see `cove_dist.inference.export`
    embeddings/  <entity>.parquet: original_id, embedding; embeddings.safetensors: <entity> [n, d], in the same order
    index/       item.faiss, inner products; item.parquet: position in the index, original_id
    model/       model.pt2, by torch.export; model.json: its inputs and outputs; ids/<column>.parquet: id, original_id
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save

from cove_dist.config.composition import load_settings
from cove_dist.config.overrides import key_of
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.errors import ConfigError
from cove_dist.inference.export import ExportConfig, export_codes
from cove_dist.inference.folders import replaced_folder
from cove_dist.inference.session import Session
from data_pipeline.id_tables import id_table_path
from data_pipeline.json_files import write_json
from data_pipeline.schema import Entity

ABOUT_FILE = "export.json"


def export_run(overrides: Sequence[str]) -> list[Path]:
    """Write the requested kinds, each into its folder, which is complete or absent. Collective.

    Returns:
        The written folders; empty on ranks other than 0.

    Raises:
        ConfigError, CheckpointError, DataError: The run does not exist, or the model does not support a kind.
    """
    request = load_settings(ExportConfig, "export", overrides)
    kinds = tuple(dict.fromkeys(request.what))
    if not kinds:
        raise ConfigError("what = []: nothing to export; allowed: codes, embeddings, index, model")
    if kinds == ("codes",):
        return [folder for folder in (export_codes(overrides),) if folder is not None]
    several = len(kinds) > 1 and request.output is not None
    folders = {kind: Path(request.output or Path(request.run) / kind) / (kind if several else "") for kind in kinds}
    if "codes" in kinds:
        same = [override for override in overrides if key_of(override) not in ("what", "output")]
        export_codes([*same, f"output={folders['codes']}"])
    session = Session(request.run, request.checkpoint, request.device)
    with process_group(request.device) as context:
        if context.world_size > 1:
            raise ConfigError(f"what = {list(kinds)}: for one process; under torchrun what=[codes] only")
        for kind in (kind for kind in kinds if kind != "codes"):
            write(session, kind, folders[kind], context)
    return list(folders.values())


def write(session: Session, kind: str, folder: Path, context: DistributedContext) -> None:
    """Write one kind into its folder.

    Raises:
        ConfigError: The folder holds other files, or the model does not support the kind.
    """
    if folder.exists() and not (folder / ABOUT_FILE).is_file():
        raise ConfigError(f"output = {folder}: exists but was not created by cove export; remove it, or change output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(folder, context) as target:
        facts = WRITERS[kind](session, target)
        write_json(target / ABOUT_FILE, {"checkpoint": session.checkpoint.name, **facts})


def write_embeddings(session: Session, folder: Path) -> dict[str, object]:
    """Write the embeddings of all entities of the model."""
    tables: dict[str, pa.Table] = {}
    entities: tuple[Entity, ...] = ("user", "item")
    for entity in entities:
        if entity in session.inference.entities():
            tables[entity] = session.embeddings(entity)
            pq.write_table(tables[entity], folder / f"{entity}.parquet", compression="zstd")
    vectors = {entity: session.inference.vectors(entity) for entity in entities if entity in tables}
    contiguous: dict[str, np.ndarray] = {str(name): np.ascontiguousarray(each) for name, each in vectors.items()}
    (folder / "embeddings.safetensors").write_bytes(save(contiguous))
    return {"entities": {name: list(v.shape) for name, v in vectors.items()}}


def write_index(session: Session, folder: Path) -> dict[str, object]:
    """Write a flat inner-product index of the items seen in training.

    Raises:
        ConfigError: The score of the model is not an inner product, or FAISS is not installed.
    """
    keys = session.inference.item_keys()
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("what = [index]: FAISS is not installed; pip install 'cove-dist[faiss]'") from error
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(np.ascontiguousarray(keys, np.float32))
    faiss.write_index(index, str(folder / "item.faiss"))
    ids = session.items.original[: len(keys)]
    pq.write_table(pa.table({"position": np.arange(len(keys)), "original_id": ids}), folder / "item.parquet")
    return {"items": len(keys), "dim": keys.shape[1], "metric": "inner product"}


def write_model(session: Session, folder: Path) -> dict[str, object]:
    """Write the scores of the model as a program that ``torch.export.load`` reads, without this package.

    Raises:
        ConfigError: The model cannot be exported as one program.
    """
    program = session.inference.program()
    names = list(program.inputs)
    rows = torch.export.Dim("rows")
    exported = torch.export.export(
        program.module.eval(),
        tuple(program.inputs.values()),
        dynamic_shapes=tuple({0: rows} for _ in names),
        strict=False,
    )
    torch.export.save(exported, folder / "model.pt2")
    (folder / "ids").mkdir()
    for column in program.columns:
        shutil.copyfile(id_table_path(session.data, column.table_name), folder / "ids" / f"{column.name}.parquet")
    shapes = {name: ["rows", *each.shape[1:]] for name, each in program.inputs.items()}
    facts = {
        "inputs": {name: {"shape": shapes[name], "dtype": str(program.inputs[name].dtype)} for name in names},
        "ids": [asdict(column) for column in program.columns],
        "unseen": "ids from num_seen on have the row num_seen, which was not trained",
        "output": program.output,
    }
    write_json(folder / "model.json", facts)
    return {"file": "model.pt2"}


WRITERS: dict[str, Callable[[Session, Path], dict[str, object]]] = {
    "embeddings": write_embeddings,
    "index": write_index,
    "model": write_model,
}
