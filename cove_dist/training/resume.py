"""Checks and records the settings that change when a run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchrec.optim.keyed import CombinedOptimizer

from cove_dist.checkpoints.files import CheckpointMeta
from cove_dist.checkpoints.storage import read_metadata
from cove_dist.config import RunConfig
from cove_dist.config.changes import RESUMABLE_PATTERNS, matches
from cove_dist.config.changes import changes_learning as changes_learning
from cove_dist.config.overrides import flat
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.runs import CONFIG_FILE, DATA_FILE, HISTORY_FILE, read_history, read_json, save_config
from cove_dist.tasks.configuration import load_saved_run
from data_pipeline.digests import FileDigest, differing_files
from data_pipeline.files import replaced_file
from data_pipeline.json_files import to_json, write_json
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)

_SAME_DATA = ("data.path", "data.name")  # may change if the content is the same
_STATE, _TABLES = "optimizer.state.", "replicated.tables."  # of names in a checkpoint: those of data-parallel tables
_NO_SETTING = ("trainer.checkpoint.resume",)  # describes this start, not the run


@dataclass(frozen=True)
class Change:
    """One key whose value differs between a run folder and the configuration it is resumed with."""

    key: str
    old: Any
    new: Any


def changes_since(
    folder: Path, meta: CheckpointMeta, config: RunConfig, fingerprint: str, world_size: int
) -> list[Change]:
    """Compare a run's saved configuration with a new one, key by key.

    Args:
        folder: Run folder.
        meta: Description of the checkpoint to resume from.
        config: Configuration to resume with.
        fingerprint: Fingerprint of the data of ``config``.
        world_size: Number of ranks that resume.

    Returns:
        The permitted differences, including the number of ranks.

    Raises:
        ConfigError: A setting that must not change differs; names every key with both values.
    """
    try:
        saved, _ = load_saved_run(str(folder))
    except ConfigError as error:
        raise ConfigError(
            f"output = {folder}: cannot be resumed, because its configuration cannot be read: {error}"
        ) from error
    same_data = meta.data == fingerprint
    changes = differences(saved.plain(), config.plain())
    refused = [change for change in changes if not _may_change(change.key, same_data=same_data)]
    if not same_data and not any(change.key == "data.path" for change in refused):
        content = f"content of data.path = {config.data.path}"
        if not refused:
            raise ConfigError(
                f"output = {folder}: cannot be resumed at step {meta.step}: {content} is not that of the run"
                f"{_changed_files(folder, config.data.path)}. Restore the run's data, or give another output"
            )
        refused.append(Change(content, meta.data[:12], fingerprint[:12]))
    if refused:
        lines = "\n".join(f"  {change.key}: {change.old} there, {change.new} here" for change in refused)
        raise ConfigError(
            f"output = {folder}: cannot be resumed at step {meta.step} with other settings:\n{lines}\n"
            f"Use the run's values ({folder / CONFIG_FILE}), or another output. A resumed run may change"
            f" {', '.join(RESUMABLE_PATTERNS)}"
        )
    ranks = [Change("world_size", meta.world_size, world_size)] if meta.world_size != world_size else []
    return changes + ranks


def check_same_optimizers(path: Path, optimizer: CombinedOptimizer, device_type: str) -> None:
    """Check that a checkpoint holds the optimizer state of the same data-parallel tables; that of fused ones differs.

    Args:
        path: The checkpoint.
        optimizer: Optimizer to resume with, after its state is created.
        device_type: ``cpu`` or ``cuda``.

    Raises:
        CheckpointError: Tables are data-parallel here and were sharded there, or the reverse.
    """
    state = optimizer.state_dict()["state"]
    here = tuple(f"{_STATE}{name}." for name, values in state.items() if name.startswith(_TABLES) and values)
    there = [n for n in read_metadata(path).state_dict_metadata if n.startswith(f"{_STATE}{_TABLES}")]
    if all(n.startswith(here) for n in there) and all(any(n.startswith(table) for n in there) for table in here):
        return
    raise CheckpointError(
        f"{path}: on trainer.device = {device_type} the tables have another kind of optimizer state: those that"
        " embeddings.sharding = auto divides among ranks by a fused optimizer on one device are data-parallel on the"
        " other. Resume on the device that wrote it. A run that is to change devices needs the same on both from its"
        " start: embeddings.optimizer.name=rowwise_adagrad or adagrad, or embeddings.sharding.default=data_parallel"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return every dotted key of two configurations whose values differ; None for missing keys."""
    there, here = flat(old), flat(new)
    compared = [key for key in dict.fromkeys([*there, *here]) if key not in _NO_SETTING]
    return [Change(key, there.get(key), here.get(key)) for key in compared if there.get(key) != here.get(key)]


def record_configuration(
    folder: Path, composed: DictConfig, step: int, changes: Sequence[Change], *, resumed: bool
) -> None:
    """Write ``config.yaml``, and append the changes to ``config_history.jsonl``: step, time, key, old and new value.

    Args:
        folder: Run folder, created if necessary.
        composed: Configuration from this step on.
        step: Step at which the run starts or continues.
        changes: Changes from the folder's configuration.
        resumed: Whether a checkpoint is resumed, which may be of step 0; otherwise a new history starts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    records = read_history(folder) if resumed else []
    records += [{"step": step, "time": time, **asdict(change)} for change in changes]
    for change in changes:
        logger.info("Changed setting %s: %s -> %s", change.key, change.old, change.new)
    if records:
        with replaced_file(folder / HISTORY_FILE) as file:
            file.write_text("".join(to_json(record) + "\n" for record in records))
    save_config(composed, folder)


def record_data(folder: Path, schema: Schema) -> None:
    """Write ``data.json``: the digest of every file of the prepared data, so that a resumed run can name what changed.

    Args:
        folder: Run folder.
        schema: Schema of the data.
    """
    write_json(folder / DATA_FILE, {name: asdict(digest) for name, digest in schema.digests.items()})


def _changed_files(folder: Path, path: str) -> str:
    """Name the first file of prepared data that differs from ``data.json``; empty if unknown."""
    recorded = {name: FileDigest(**digest) for name, digest in read_json(folder / DATA_FILE).items()}
    changed = differing_files(recorded, Schema.load(path).digests) if recorded else []
    others = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f": {changed[0]} differs{others}" if changed else ""


def _may_change(key: str, *, same_data: bool) -> bool:
    return matches(key, RESUMABLE_PATTERNS) or (same_data and key in _SAME_DATA)
