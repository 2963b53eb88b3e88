"""The records of finished cells in one ZIP file, so that tables can be made, and an experiment continued, elsewhere.

A record is what a run folder says of its run: configuration, log, metrics and versions. Checkpoints are not in it, nor
what belongs to the machine alone, such as its name and its folders.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import metrics_path
from cove_dist.experiments.cells import RECORD, is_finished
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.runs import (
    CONFIG_FILE,
    DATA_FILE,
    HISTORY_FILE,
    LOG_FILE,
    PROVENANCE_FILE,
    SUMMARY_FILE,
    WARM_START_FILE,
    read_json,
)
from data_pipeline.files import replaced_file
from data_pipeline.folders import replaced_folder
from data_pipeline.json_files import to_json

logger = logging.getLogger(__name__)

ARCHIVE_FILE = "runs.zip"
_COPIED = (CONFIG_FILE, HISTORY_FILE, DATA_FILE, LOG_FILE, SUMMARY_FILE, WARM_START_FILE, RECORD)
_OF_THE_MACHINE = ("command", "folder", "host")  # keys of provenance.json
_ANY_DAY = (1980, 1, 1, 0, 0, 0)  # equal records make equal files


def write_archive(cells: Sequence[Cell], grid: GridConfig, path: Path) -> None:
    """Write the records of the finished cells; no file if there are none.

    Records in the file of cells that are not finished here, or that this call leaves out, stay.
    """
    finished = {cell.name: cell for cell in cells if is_finished(cell, grid)}
    if not finished:
        return
    contents = _archived(path, without=finished.keys())
    for name, cell in finished.items():
        contents |= {f"{name}/{record}": content for record, content in _records(cell, grid).items()}
    with replaced_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member, content in sorted(contents.items()):
            info = zipfile.ZipInfo(member, _ANY_DAY)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def _archived(path: Path, without: Collection[str]) -> dict[str, bytes]:
    """Return the contents of an archive, by member, of all cells but some; nothing if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.rpartition("/")[0] not in without]
            return {name: archive.read(name) for name in members}
    except FileNotFoundError:
        return {}
    except zipfile.BadZipFile as error:
        logger.warning("%s: %s; it is replaced", path, error)
        return {}


def restore(cells: Sequence[Cell], grid: GridConfig, path: Path) -> list[Cell]:
    """Write the folders of cells that the archive has and `output` has not; returns these cells.

    Raises:
        ConfigError: There is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            absent = [cell for cell in cells if not cell.folder.exists() and f"{cell.name}/{CONFIG_FILE}" in members]
            for cell in absent:
                with replaced_folder(cell.folder) as folder:
                    for name in sorted({*_COPIED, PROVENANCE_FILE, *_metrics_names(cell, grid)}):
                        if f"{cell.name}/{name}" in members:
                            (folder / name).write_bytes(archive.read(f"{cell.name}/{name}"))
    except (FileNotFoundError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path}: {error}; restore=true needs the archive of an earlier run, or give false"
        ) from error
    return absent


def _records(cell: Cell, grid: GridConfig) -> dict[str, bytes]:
    found = {name: cell.folder / name for name in sorted({*_COPIED, *_metrics_names(cell, grid)})}
    records = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    provenance = read_json(cell.folder / PROVENANCE_FILE)
    if provenance:
        records[PROVENANCE_FILE] = to_json({"starts": [_portable(start) for start in provenance["starts"]]}).encode()
    return records


def _metrics_names(cell: Cell, grid: GridConfig) -> list[str]:
    return [metrics_path(cell.folder, split, grid.checkpoint).name for split in grid.splits]


def _portable(start: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in start.items() if key not in _OF_THE_MACHINE}
    if "data" in kept:
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "path"}
    return kept
