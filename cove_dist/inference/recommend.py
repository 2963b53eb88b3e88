"""The best items of a run for users, as Parquet.

``part-00000.parquet`` …: user, rank (from 1), item, score; ids are original ones. Collaborative filtering writes one
per rank, in order of the users' encoded ids; of equal scores, lower encoded item ids come first, for any number of
ranks. Unseen items are not listed. Unseen users raise an error, are skipped, or get in ``part-unknown.parquet`` the
most frequent items of training, with null scores, or the list of the out-of-vocabulary row, if the run trained it.
``interactions=FILE`` recommends for new users by their interactions (`inference.fold_in`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.config import RunConfig, settings
from cove_dist.config.composition import load_settings
from cove_dist.config.overrides import key_of
from cove_dist.distributed import DistributedContext, batches_of_block, process_group, sum_over_ranks, world
from cove_dist.errors import ConfigError
from cove_dist.faults.outputs import output_folder
from cove_dist.inference.arguments import check_oov_row, listed_items
from cove_dist.inference.checkpoints import load_trained
from cove_dist.inference.fold_in import LEARNING_RATE, STEPS, fold_in
from cove_dist.inference.folders import replaced_folder
from cove_dist.inference.frequent_items import most_frequent
from cove_dist.inference.ids import IdTable
from cove_dist.inference.request import RunRequest
from cove_dist.inference.users import Users, as_ids, find_users
from cove_dist.tasks.base import RetrieverSettings, TaskModel, inner_model
from cove_dist.tasks.registry import task_of
from cove_dist.types import Folder, PositiveFloat, PositiveInt, Text
from data_pipeline.history import History
from data_pipeline.id_tables import combined, original_id_type, read_original_block, read_original_ids
from data_pipeline.json_files import write_json
from data_pipeline.parquet_files import GroupedWriter
from data_pipeline.schema import ENTITIES, SPLITS, Schema

logger = logging.getLogger(__name__)

ABOUT_FILE = "_recommendations.json"  # readers of the folder as one table skip names with _


@settings
class RecommendConfig(RunRequest):
    users: str | list[int | str]
    interactions: Text | None
    user: Text | None
    item: Text | None
    fold_in_steps: PositiveInt | None
    fold_in_learning_rate: PositiveFloat | None
    k: PositiveInt
    history: Literal["remove", "keep"]
    unknown: Literal["error", "skip", "popular", "oov_row"]
    columns: dict[str, Any] | None
    batch_size: PositiveInt
    faiss: bool
    output: Folder | None


def recommend(overrides: Sequence[str]) -> Path | None:
    """Write recommendations of a run's checkpoint; return the folder, complete or absent, on rank 0. Collective.

    Raises:
        ConfigError, DataError, CheckpointError: The run does not exist, users are unknown, the folder holds other
            files, or there is no checkpoint.
        FloatingPointError: Scores are not finite: the model has diverged.
    """
    request = load_settings(RecommendConfig, "recommend", overrides)
    config, run = request.load()
    task, model, schema = task_of(config), config.model.name, Schema.load(config.data.path)
    if request.faiss and not config.model.kind.ranks_by_inner_product:
        raise ConfigError(f"faiss = true: the score of {model} is no inner product; set faiss=false")
    folder = output_folder(run / "recommendations", request.output, ABOUT_FILE, "recommendations")
    checkpoint = find_checkpoint(run, config, request.checkpoint)
    if request.unknown == "oov_row":
        check_oov_row(config, schema, "user", "error, skip, popular")
    if "batch_size" in map(key_of, overrides) and (request.interactions is not None or not task.recommends_on_ranks):
        raise ConfigError(
            f"batch_size = {request.batch_size}: acts on the users of collaborative filtering, without interactions;"
            " remove it"
        )
    if request.interactions is not None:
        recommend_folded_in(request, folder)
        return folder
    for key in ("user", "item"):
        if getattr(request, key) is not None:
            raise ConfigError(f"{key} = {getattr(request, key)}: names a column of interactions=FILE; remove it")
    for key in ("fold_in_steps", "fold_in_learning_rate"):
        if getattr(request, key) is not None:
            raise ConfigError(f"{key} = {getattr(request, key)}: acts on users of interactions=FILE; remove it")
    users = find_users(request.users, request.unknown, config.data.path, schema)
    if not task.recommends_on_ranks:
        recommend_in_one_process(request, users, folder)
        return folder
    if request.columns:
        raise ConfigError(f"columns = {request.columns}: {model} reads only users and items; remove them")
    with process_group(request.device) as context:
        if request.faiss and context.world_size > 1:
            raise ConfigError(f"faiss = true: for one process, not {context.world_size}; run cove recommend")
        recommend_here(config, schema, context, checkpoint, folder, users, request)
    return folder if context.is_main else None


def recommend_in_one_process(request: RecommendConfig, users: Users, folder: Path) -> None:
    """Recommend in this process, with a model of any task.

    Raises:
        ConfigError: There are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("cove recommend: models of this task recommend in one process; run it without torchrun")
    session = request.session()
    asked = session.users.decode(users.known)
    if request.unknown in ("popular", "oov_row"):
        asked = combined(pa.chunked_array([asked, as_ids(users.unknown, asked.type)]))
    table = session.recommend(
        asked, request.k, unknown=request.unknown, history=request.history, columns=request.columns
    )
    with process_group(request.device) as context, replaced_folder(folder, context) as part:
        pq.write_table(table, part / "part-00000.parquet", compression="zstd")
        write_json(part / ABOUT_FILE, about(request, session.checkpoint, users))


def recommend_folded_in(request: RecommendConfig, folder: Path) -> None:
    """Recommend for new users, who are known by a file of their interactions alone, in this process.

    Raises:
        ConfigError: Users are named as well, the model cannot fold in users, or there are several processes.
    """
    given = request.interactions
    if request.users != "all":
        raise ConfigError(f"interactions = {given}: its users are recommended for; remove users = {request.users}")
    if request.unknown not in ("error", "skip"):
        raise ConfigError(f"unknown = {request.unknown}: with interactions allowed: error, skip (of unknown items)")
    for key in ("columns", "faiss"):
        if getattr(request, key):
            raise ConfigError(f"{key} = {getattr(request, key)}: does nothing with interactions; remove it")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(f"interactions = {given}: users are folded in by one process; run it without torchrun")
    session = request.session()
    names = {"user": request.user, "item": request.item}
    steps, rate = request.fold_in_steps or STEPS, request.fold_in_learning_rate or LEARNING_RATE
    folded = fold_in(session, str(given), "user", request.unknown, steps, rate, **names)
    table = folded.recommend(request.k, request.history)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with process_group(request.device) as alone, replaced_folder(folder, alone) as part:
        pq.write_table(table, part / "part-00000.parquet", compression="zstd")
        written = {"interactions": given, "users": len(folded), "k": request.k, "history": request.history}
        by = {"fold_in_steps": steps, "fold_in_learning_rate": rate}
        write_json(part / ABOUT_FILE, {"checkpoint": session.checkpoint.name, **written, **by})
    logger.info("Recommendations for %d users that were folded in", len(folded))


def about(request: RecommendConfig, checkpoint: Path, users: Users) -> dict[str, Any]:
    """Return the description of the recommendations."""
    counts = {"users": len(users.known), "unknown": len(users.unknown)}
    settings = {"k": request.k, "faiss": request.faiss, "history": request.history, "unknown_users": request.unknown}
    return {"checkpoint": checkpoint.name, **counts, **settings}


def recommend_here(
    config: RunConfig,
    schema: Schema,
    context: DistributedContext,
    checkpoint: Path,
    folder: Path,
    users: Users,
    request: RecommendConfig,
) -> None:
    """Recommend items for ``users`` in an existing process group. Collective."""
    batch_size = -(-request.batch_size // context.world_size)
    k = listed_items(request.k, schema)
    model = inner_model(load_trained(config, schema, context, checkpoint, batch_size).eval(), TaskModel)
    splits = [split for split in SPLITS if schema.has_split(split)] if request.history == "remove" else []
    histories = tuple(History.load(config.data.path, split) for split in splits)
    with torch.no_grad(), replaced_folder(folder, context) as part:
        settings = RetrieverSettings(k, histories, request.faiss)
        retriever = task_of(config).build_retriever(schema, model, context, settings)
        batches = ((each, *retriever(each)) for each in batches_of_block(users.known, batch_size, world()))
        own = users.known[slice(*world().block_of(len(users.known)))]
        empty = write_lists(batches, own, Path(config.data.path), schema, part / f"part-{context.rank:05d}.parquet")
        empty = int(sum_over_ranks(torch.tensor([empty], device="cpu"), context.device))
        unseen = list_of_unseen(config, schema, model, context, request, k) if len(users.unknown) else None
        retriever.finite.compute()
        if context.is_main and unseen is not None:
            write_unknown(config, schema, users.unknown, *unseen, part / "part-unknown.parquet")
        if context.is_main:
            write_json(part / ABOUT_FILE, about(request, checkpoint, users))
    logger.info("Recommendations for %d users; %d users unknown to training", len(users.known), len(users.unknown))
    if empty:
        logger.info("%d users have no rows: all items are in their history; history=keep lists them", empty)


def list_of_unseen(
    config: RunConfig, schema: Schema, model: TaskModel, context: DistributedContext, request: RecommendConfig, k: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return encoded items and scores of every unseen user; None if unseen users get no list. Collective."""
    if request.unknown == "popular":
        frequent = most_frequent(config.data.path, schema, k)
        return frequent, np.full(len(frequent), np.nan)
    if request.unknown != "oov_row":
        return None
    settings = RetrieverSettings(k, faiss=request.faiss)
    retriever = task_of(config).build_retriever(schema, model, context, settings)
    scores, items = retriever(np.array([schema.entity("user").num_seen]))
    return items[0].cpu().numpy(), scores[0].cpu().numpy()


def write_unknown(
    config: RunConfig, schema: Schema, users: pa.Array, items: np.ndarray, scores: np.ndarray, path: Path
) -> None:
    """Write the same list for every unseen user: encoded ``items [k]``, -1 for none, and scores, nan for none."""
    present = items >= 0
    listed, values = IdTable(config.data.path, schema.entity("item")).decode(items[present]), scores[present]
    kinds = [original_id_type(config.data.path, schema.entity(role).table_name) for role in ENTITIES]
    users, listed = as_ids(users, kinds[0]), listed.cast(kinds[1])
    repeated = np.tile(values.astype(np.float32), len(users))
    table = pa.table(
        {
            "user": users.take(pa.array(np.repeat(np.arange(len(users)), len(listed)))),
            "rank": pa.array(np.tile(np.arange(1, len(listed) + 1), len(users)), pa.int32()),
            "item": listed.take(pa.array(np.tile(np.arange(len(listed)), len(users)))),
            "score": pa.array(repeated, pa.float32(), mask=np.isnan(repeated)),
        }
    )
    pq.write_table(table, path, compression="zstd")


def write_lists(
    batches: Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]],
    own: np.ndarray,
    data: Path,
    schema: Schema,
    path: Path,
) -> int:
    """Write users ``[B]`` with scores and items ``[B, k]``, -1 for none, batch by batch; return how many have none.

    Args:
        batches: Encoded users, scores and items.
        own: All users of the batches, in increasing order: only ids between the first and the last are in memory.
        data, schema: Prepared data.
        path: The file.
    """
    tables = [schema.entity(role).table_name for role in ENTITIES]
    kinds = [original_id_type(data, table) for table in tables]
    first, last = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
    user_ids, item_ids = read_original_block(data, tables[0], first, last), read_original_ids(data, tables[1])
    form = pa.schema([("user", kinds[0]), ("rank", pa.int32()), ("item", kinds[1]), ("score", pa.float32())])
    empty = 0
    with GroupedWriter(path, form, compression="zstd") as writer:
        for users, scores, items in batches:
            listed = items.cpu().numpy() >= 0
            empty += int((~listed.any(axis=1)).sum())
            places, ranks = np.nonzero(listed)
            columns = [
                user_ids.take(pa.array(users[places] - first)).cast(kinds[0]),
                pa.array(ranks + 1, pa.int32()),
                item_ids.take(pa.array(items.cpu().numpy()[listed])).cast(kinds[1]),
                pa.array(scores.cpu().numpy()[listed], pa.float32()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=form))
    return empty
