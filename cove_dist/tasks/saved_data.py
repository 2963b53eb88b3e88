"""The prepared data of a run folder: in the folder that its configuration names, or where the run was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cove_dist.config import RunConfig
from cove_dist.errors import ConfigError
from cove_dist.runs import CONFIG_FILE, PROVENANCE_FILE, read_json
from cove_dist.tasks.configuration import load_saved_run
from data_pipeline.fingerprint import data_fingerprint


def load_run_with_data(run: str, data: str | Path | None = None) -> tuple[RunConfig, Path]:
    """Read the configuration of a run folder, in which ``data.path`` is the absolute path of the run's data.

    Args:
        run: Run folder.
        data: Prepared folder with the data of the run; None: see `find_data`.

    Raises:
        ConfigError: The folder holds no run, its configuration is invalid, or its data are not found.
    """
    config, folder = load_saved_run(run)
    found = find_data(folder, config.data.path, data)
    return replace(config, data=replace(config.data, path=str(found.absolute()))), folder


def find_data(run: Path, path: str, data: str | Path | None = None) -> Path:
    """Return the folder with the data of a run.

    The configuration keeps the path as the user wrote it, and a relative one is meant in the working directory of the
    training. So of this path in the present working directory, and of the one that ``provenance.json`` recorded, the
    first is taken that has the data, by their fingerprint: another preparation may number the ids in another way.

    Args:
        run: Run folder.
        path: ``data.path`` of its configuration.
        data: The folder to take instead.

    Raises:
        ConfigError: No folder has prepared data, or they are not those of the training.
        DataError: A file is missing or was altered.
    """
    starts = read_json(run / PROVENANCE_FILE).get("starts", [])
    record = starts[-1]["data"] if starts else {}
    trained, fingerprint = str(record.get("path", path)), record.get("fingerprint")
    named = [str(data)] if data is not None else list(dict.fromkeys([path, trained]))
    there = [Path(each) for each in named if (Path(each) / "schema.json").is_file()]
    remedy = (
        "name their folder: data.path=FOLDER of cove evaluate, recommend, predict and export, data=FOLDER of cove.load"
        f" in Python, or data.path in {run / CONFIG_FILE}"
    )
    if not there:
        places = " or ".join(str(Path(each).absolute()) for each in named)
        raise ConfigError(f"run = {run}: its data are not there: no schema.json in {places}. Restore them, or {remedy}")
    for folder in there:
        if fingerprint is None or data_fingerprint(folder) == fingerprint:
            return folder
    raise ConfigError(
        f"run = {run}: it was trained on other data than {there[0].absolute()} has: their fingerprints differ."
        f" Restore {trained}, or {remedy}"
    )
