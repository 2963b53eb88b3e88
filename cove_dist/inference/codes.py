"""The learned codes of every user and item of a run, and its codebooks, as files that other tools read.

Layout::

    codes.json                     the checkpoint; by entity: ids, ids without codes, levels, codes in use per level
    codebooks.safetensors          user.1, user.2, item.1, …: float32 [v_i, d]; what they are of as string metadata
    user/part-00000.parquet …      entity, original_id, code_1 … code_H (int32; level 1, the finest, first): one part a
    item/part-00000.parquet …      rank, all in order of the encoded ids. Unseen ids have null codes

Shapes: ``n`` ids of one look-up, ``H`` levels, ``v_i`` codes at level i, ``d`` embedding dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.progress import track
from safetensors.torch import save

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.config import RunConfig, settings
from cove_dist.config.composition import load_settings
from cove_dist.console import console
from cove_dist.distributed import DistributedContext, process_group, sum_over_ranks
from cove_dist.embeddings.lookup import single_ids
from cove_dist.embeddings.serving import Precision
from cove_dist.errors import ConfigError
from cove_dist.faults.outputs import output_folder
from cove_dist.inference.checkpoints import load_trained
from cove_dist.inference.folders import replaced_folder
from cove_dist.inference.request import RunRequest
from cove_dist.runs import CODES_FILE
from cove_dist.tasks.base import TaskModel, inner_model
from cove_dist.types import Folder, PositiveInt
from data_pipeline.errors import DataError
from data_pipeline.id_tables import id_table_path, rows_between
from data_pipeline.integrity import checked_file
from data_pipeline.json_files import to_json, write_json
from data_pipeline.parquet_files import row_groups
from data_pipeline.schema import Categorical, Entity, Schema
from data_pipeline.streaming.partition import row_block

logger = logging.getLogger(__name__)

CODEBOOKS_FILE = "codebooks.safetensors"

Chunk = tuple[pa.Table, int]


@settings
class ExportConfig(RunRequest):
    what: tuple[Literal["codes", "embeddings", "index", "model", "onnx"], ...]
    precision: Precision
    batch_size: PositiveInt
    output: Folder | None


@dataclass(frozen=True)
class EntityStatistics:
    """Statistics of one entity, as in ``codes.json``: ids, ``unseen`` ids without codes, ``used`` codes per level."""

    ids: int
    unseen: int
    levels: tuple[int, ...]
    used: tuple[int, ...]


def export_codes(overrides: Sequence[str]) -> Path | None:
    """Write the codes and codebooks of a run's checkpoint; return the folder on rank 0. Collective.

    The folder is complete or absent. The output of an earlier export is replaced.

    Raises:
        ConfigError, DataError, CheckpointError: The run does not exist or has no quantizers, the folder holds other
            files, there is no checkpoint, or files are damaged.
    """
    request = load_settings(ExportConfig, "export", overrides)
    config, schema, checkpoint, folder = find_codes(request, request.output)
    with process_group(request.device) as context:
        export_here(config, schema, context, checkpoint, folder, -(-request.batch_size // context.world_size))
    return folder if context.is_main else None


def find_codes(request: RunRequest, output: Folder | None) -> tuple[RunConfig, Schema, Path, Path]:
    """Return the configuration of a run, its schema, the checkpoint with the codes, and the folder to write.

    Raises:
        ConfigError, DataError, CheckpointError: As in `export_codes`.
    """
    config, run = request.load()
    if not config.quantizer.levels():
        raise ConfigError(f"run = {run}: has no quantizers, so there are no codes; train one with quantizer=cove")
    folder = output_folder(run / "codes", output, CODES_FILE, "exported codes")
    checkpoint = find_checkpoint(run, config, request.checkpoint)
    schema = Schema.load(config.data.path)
    for entity in config.quantizer.levels():
        check_ids(id_table_path(config.data.path, schema.entity(entity).table_name), schema.entity(entity))
    return config, schema, checkpoint, folder


def export_here(
    config: RunConfig, schema: Schema, context: DistributedContext, checkpoint: Path, folder: Path, batch_size: int
) -> None:
    """Export in an existing process group; ``batch_size`` is that of this rank. Collective."""
    model = inner_model(load_trained(config, schema, context, checkpoint, batch_size).eval(), TaskModel)
    with replaced_folder(folder, context) as target:
        counts = {}
        for entity in config.quantizer.levels():
            path = id_table_path(config.data.path, schema.entity(entity).table_name)
            counts[entity] = EntityExporter(model, schema, entity, context).write(path, target / entity, batch_size)
        if context.is_main:
            write_codebooks(model, config, schema, checkpoint, target / CODEBOOKS_FILE)
            entities = {entity: asdict(counted) for entity, counted in counts.items()}
            record = {"data": schema.name, "checkpoint": checkpoint.name, "entities": entities}
            write_json(target / CODES_FILE, record)


class EntityExporter:
    """Looks up and quantizes the ids of one entity, and writes this rank's part.

    Args:
        model: Sharded model in eval mode.
        schema, context: Data and distributed context of the run.
        entity: User or item.
    """

    def __init__(self, model: TaskModel, schema: Schema, entity: Entity, context: DistributedContext) -> None:
        self.entity, self.column, self.context = entity, schema.entity(entity), context
        self._tables, self._quantizer = model.tables, model.objective.quantizers[entity]
        self._lookup = model.entity_lookup(entity, schema)

    def write(self, path: Path, folder: Path, batch_size: int) -> EntityStatistics:
        """Write this rank's part into ``folder``; return the statistics of all ranks. Collective.

        Args:
            path: Table of ids.
            folder: Folder shared by the ranks; created here.
            batch_size: Number of ids of this rank per look-up.
        """
        column, rank, world_size = self.column, self.context.rank, self.context.world_size
        chunks = list_chunks(path, column.num_ids, batch_size, rank, world_size)
        usage = [np.zeros(size, dtype=np.int64) for size in self._quantizer.levels]
        folder.mkdir(exist_ok=True)
        part = folder / f"part-{rank:05d}.parquet"
        with pq.ParquetWriter(part, self._part_schema(pq.read_schema(path)), compression="zstd") as writer:
            for chunk, stride in self._shown(chunks, steps=-(-column.num_ids // (world_size * batch_size))):
                table = self._with_codes(chunk, stride, writer.schema)
                for level, counts in enumerate(usage, start=1):
                    counts += np.bincount(table[f"code_{level}"].drop_null(), minlength=len(counts))
                if len(table):
                    writer.write_table(table)
        total = sum_over_ranks(torch.from_numpy(np.concatenate(usage)).double(), self.context.device)
        used = tuple(int((counts > 0).sum()) for counts in total.split(self._quantizer.levels))
        unseen = column.num_ids - column.num_seen
        logger.info("Exported codes of %d %ss (%d unseen ids have null codes)", column.num_seen, self.entity, unseen)
        return EntityStatistics(column.num_ids, unseen, self._quantizer.levels, used)

    def _part_schema(self, ids: pa.Schema) -> pa.Schema:
        codes = [(f"code_{level}", pa.int32()) for level, _ in enumerate(self._quantizer.levels, start=1)]
        return pa.schema([("entity", pa.string()), ("original_id", ids.field("original_id").type), *codes])

    def _with_codes(self, chunk: pa.Table, stride: int, schema: pa.Schema) -> pa.Table:
        ids = chunk["id"].to_numpy()
        seen = ids < self.column.num_seen
        codes = np.zeros((len(ids), len(self._quantizer.levels)), dtype=np.int32)
        codes[seen] = self._codes(ids[seen], stride)
        columns = [pa.repeat(self.entity, len(ids)), chunk["original_id"]]
        return pa.table([*columns, *(pa.array(level, mask=~seen) for level in codes.T)], schema=schema)

    @torch.no_grad()
    def _codes(self, rows: np.ndarray, stride: int) -> np.ndarray:
        """Return the codes ``[n, H]`` of embedding rows ``[n]``; ``stride >= n`` is equal on all ranks. Collective."""
        columns, position, vectors = self._lookup
        ids = torch.from_numpy(rows).to(self.context.device)
        looked_up = self._tables(single_ids(columns, columns[position], ids, stride)).wait()
        return self._quantizer(vectors(looked_up, len(rows))).codes.cpu().numpy()

    def _shown(self, chunks: Iterator[Chunk], steps: int) -> Iterator[Chunk]:
        """Yield the chunks, with a progress bar on rank 0's terminal."""
        if not (self.context.is_main and console.is_terminal):
            return chunks
        return iter(track(chunks, f"{self.entity} codes", total=steps, console=console))


def list_chunks(path: Path, num_ids: int, size: int, rank: int, world_size: int) -> Iterator[Chunk]:
    """Yield this rank's contiguous share of the ids, in order, one chunk per step.

    All ranks take the same number of steps, with equal strides; a rank at the end of its share gets empty chunks.

    Args:
        path: Table of ids.
        num_ids: Number of ids of all ranks.
        size: Maximum number of ids per chunk.
        rank, world_size: Rank of the share and number of ranks.

    Yields:
        A table ``id, original_id``, and the maximum number of ids of any rank in this step.
    """
    first, last = row_block(num_ids, rank, world_size)
    file = pq.ParquetFile(path)
    chunks = row_groups(pa.RecordBatchReader.from_batches(file.schema_arrow, rows_between(file, first, last)), size)
    padded = chain(chunks, repeat(file.schema_arrow.empty_table()))
    largest = -(-num_ids // world_size)
    for start in range(0, largest, size):
        yield next(padded), min(size, largest - start)


def check_ids(path: Path, column: Categorical) -> None:
    """Raise `DataError` if the table of ids is missing, altered, or does not match the schema."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Prepare the data again.")
    rows = pq.read_metadata(path).num_rows
    if rows != column.num_ids:
        raise DataError(
            f"{path}: {rows} rows, while schema.json has num_ids = {column.num_ids} for {column.name}."
            " Prepare the data again."
        )
    checked_file(path.parents[1], f"{path.parent.name}/{path.name}")


def write_codebooks(model: TaskModel, config: RunConfig, schema: Schema, checkpoint: Path, path: Path) -> None:
    """Write every codebook as ``<entity>.<level>``, levels from 1."""
    codebooks = {
        f"{entity}.{level}": quantizer.codebooks[level - 1].detach().float().cpu().contiguous()
        for entity, quantizer in model.objective.quantizers.items()
        for level in range(1, len(quantizer.levels) + 1)
    }
    metadata = {
        "data": schema.name,
        "checkpoint": checkpoint.name,
        "alpha": str(config.quantizer.alpha),
        "levels": to_json(config.quantizer.levels()),
    }
    path.write_bytes(save(codebooks, metadata))  # save_file would make it readable only by its owner
