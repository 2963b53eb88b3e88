"""The best items of a run for every user, as Parquet.

``part-00000.parquet`` …, one a rank, in order of the users' encoded ids: user, rank (from 1), item, score; ids are
original ones. Of equal scores the item of the lower encoded id is first, on any number of ranks. Items that the user
has in any split are left out, and so are items that training never saw. A user whom training never saw gets the list of
the reserved row, the same for all such users but for what they had.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import torch

from cove_dist.config import RunConfig, settings
from cove_dist.config.composition import load_settings
from cove_dist.distributed import DistributedContext, batches_of_block, process_group, world
from cove_dist.errors import ConfigError
from cove_dist.inference.checkpoints import find_checkpoint
from cove_dist.models.cf.base import InnerProductRecommender
from cove_dist.runs import load_saved_run
from cove_dist.tasks.base import inner_model
from cove_dist.tasks.cf.faiss_retriever import FaissRetriever
from cove_dist.tasks.cf.model import CFModel
from cove_dist.tasks.cf.retrieval import TopKRetriever
from cove_dist.tasks.cf.vectors import vectors_of
from cove_dist.tasks.registry import task_of
from cove_dist.training.build import build, describe_model
from cove_dist.training.checkpoint import load_model
from cove_dist.training.folders import replaced_folder
from cove_dist.types import PositiveInt, Text
from data_pipeline.history import History
from data_pipeline.id_tables import read_original_ids
from data_pipeline.json_files import write_json
from data_pipeline.schema import ENTITIES, SPLITS, Schema

logger = logging.getLogger(__name__)

ABOUT_FILE = "_recommendations.json"  # readers of the folder as one table pass over names with _


@settings
class RecommendConfig:
    run: Text
    checkpoint: Literal["best", "newest"]
    device: Literal["auto", "cpu", "cuda"]
    users: str | list[int | str]
    k: PositiveInt
    batch_size: PositiveInt
    faiss: bool
    output: Text | None


def recommend(overrides: Sequence[str]) -> Path | None:
    """Write the lists of a run's checkpoint. Every rank calls it; rank 0 gets the folder, which is complete or absent.

    Raises:
        ConfigError, DataError, CheckpointError: no such run, not one of collaborative filtering, unknown users, a
            folder that holds other things, or no checkpoint.
        FloatingPointError: the model has diverged: scores are not finite.
    """
    request = load_settings(RecommendConfig, "recommend", overrides)
    config, run = load_saved_run(request.run)
    head_class = config.model.kind
    if not task_of(config).recommends:
        raise ConfigError(
            f"run = {run}: {head_class.__name__} recommends nothing; give a run of collaborative filtering"
        )
    if request.faiss and not issubclass(head_class, InnerProductRecommender):
        raise ConfigError(f"faiss = true: the score of {head_class.__name__} is no inner product; set faiss=false")
    folder = run / "recommendations" if request.output is None else Path(request.output)
    if folder.exists() and not (folder / ABOUT_FILE).is_file():
        raise ConfigError(f"output = {folder}: exists and holds no recommendations; remove it, or give another output")
    checkpoint = find_checkpoint(run, config, request.checkpoint)
    schema = Schema.load(config.data.path)
    users = find_users(request.users, Path(config.data.path), schema)
    with process_group(request.device) as runtime:
        if request.faiss and runtime.world_size > 1:
            raise ConfigError(f"faiss = true: for one process, not {runtime.world_size}; run cove recommend")
        recommend_here(config, schema, runtime, checkpoint, folder, users, request)
    return folder if runtime.is_main else None


def recommend_here(
    config: RunConfig,
    schema: Schema,
    runtime: DistributedContext,
    checkpoint: Path,
    folder: Path,
    users: np.ndarray,
    request: RecommendConfig,
) -> None:
    """Recommend to ``users`` (encoded) in a process group that stands. Collective."""
    batch_size = -(-request.batch_size // runtime.world_size)
    trainable = build(config, schema, runtime, batch_size)
    load_model(checkpoint, trainable, describe_model(config, schema))
    model = inner_model(trainable.model.eval(), CFModel)
    histories = [History.load(config.data.path, split) for split in SPLITS]
    with torch.no_grad(), replaced_folder(folder, runtime) as part:
        retriever = build_retriever(model, schema, histories, request, runtime)
        batches = ((each, *retriever(each)) for each in batches_of_block(users, batch_size, world()))
        write_lists(batches, Path(config.data.path), schema, part / f"part-{runtime.rank:05d}.parquet")
        retriever.finite.compute()
        if runtime.is_main:
            about = {"checkpoint": checkpoint.name, "users": len(users), "k": request.k, "faiss": request.faiss}
            write_json(part / ABOUT_FILE, about)
    logger.info("recommendations for %d users", len(users))


def build_retriever(
    model: CFModel, schema: Schema, histories: list[History], request: RecommendConfig, runtime: DistributedContext
) -> TopKRetriever | FaissRetriever:
    """Return what finds the best items of users. Collective."""
    head, vectors = model.objective.head, vectors_of(model, schema, runtime.device)
    reserved = schema.entity("user").num_seen
    if not request.faiss:
        return TopKRetriever(head, vectors, histories, reserved, request.k, runtime)
    assert isinstance(head, InnerProductRecommender)  # `recommend` has checked its class
    return FaissRetriever(head, vectors, histories, reserved, request.k, runtime)


def write_lists(
    batches: Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]], data: Path, schema: Schema, path: Path
) -> None:
    """Write users ``[B]`` with scores and items ``[B, k]``, batch after batch; -1 stands for no item."""
    user_ids, item_ids = (read_original_ids(data, schema.entity(role).table_name) for role in ENTITIES)
    form = pa.schema([("user", user_ids.type), ("rank", pa.int32()), ("item", item_ids.type), ("score", pa.float32())])
    with pq.ParquetWriter(path, form, compression="zstd") as writer:
        for users, scores, items in batches:
            listed = items.cpu().numpy() >= 0
            places, ranks = np.nonzero(listed)
            columns = [
                user_ids.take(pa.array(users[places])),
                pa.array(ranks + 1, pa.int32()),
                item_ids.take(pa.array(items.cpu().numpy()[listed])),
                pa.array(scores.cpu().numpy()[listed], pa.float32()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=form))


def find_users(asked: str | list[int | str], data: Path, schema: Schema) -> np.ndarray:
    """Encoded ids, rising, each once.

    Args:
        asked: ``all``, original ids, or a file whose first column has them.

    Raises:
        ConfigError: a file that cannot be read, no users, or users that the data has not.
    """
    known = read_original_ids(data, schema.entity("user").table_name)
    if asked == "all":
        return np.arange(len(known))
    wanted = read_column(Path(asked)) if isinstance(asked, str) else pa.array(list(map(str, asked)))
    found = pc.index_in(wanted.cast(pa.string()), known.cast(pa.string()))
    if found.null_count or len(found) == 0:
        unknown = wanted.filter(pc.is_null(found))[:3].to_pylist()
        raise ConfigError(
            f"users = {asked}: " + (f"{found.null_count} are not in the data: {unknown}" if unknown else "none")
        )
    return np.unique(found.to_numpy().astype(np.int64))


def read_column(path: Path) -> pa.Array:
    """The first column of a Parquet file, or of text: a CSV file with a header line, or a plain .txt without one."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pq.read_table(path).column(0).combine_chunks()
        header = csv.ReadOptions(autogenerate_column_names=path.suffix.lower() == ".txt")
        return csv.read_csv(path, read_options=header).column(0).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"users = {path}: neither all, nor a list, nor a file that can be read: {error}") from error
