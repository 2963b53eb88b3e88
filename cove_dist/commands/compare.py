"""One table of several evaluated runs. Runs that differ only in their seed form one column: mean ± standard deviation.

All metrics are of one split and kind of checkpoint; runs whose metrics mean different things, by protocol or data, are
refused.

cove compare runs=[runs/movielens_deepfm,runs/movielens_cove_deepfm]
cove compare 'runs=runs/seeds/*'
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console

from cove_dist.commands.tables import rich_table
from cove_dist.config import settings
from cove_dist.config.composition import load_settings
from cove_dist.errors import ConfigError
from cove_dist.experiments.comparison import compare_runs
from cove_dist.types import JsonFile, Text
from data_pipeline.json_files import write_json


@settings
class CompareConfig:
    runs: Text | tuple[Text, ...]
    split: Literal["validation", "test"]
    checkpoint: Literal["best", "newest"]
    json: JsonFile | None


def run(arguments: Sequence[str]) -> None:
    config = load_settings(CompareConfig, "compare", arguments)
    comparison = compare_runs(_folders(config.runs), config.split, config.checkpoint)
    Console().print(rich_table(comparison.table()))
    if config.json is not None:
        write_json(Path(config.json), asdict(comparison))


def _folders(runs: str | Sequence[str]) -> list[str]:
    """Return the folders of a list of folders and patterns, each folder once.

    Raises:
        ConfigError: There are no folders, or one of the patterns matches none.
    """
    patterns = [runs] if isinstance(runs, str) else list(runs)
    found = {pattern: [pattern] if Path(pattern).is_dir() else sorted(glob.glob(pattern)) for pattern in patterns}
    missing = [pattern for pattern, folders in found.items() if not folders]
    if missing or not patterns:
        raise ConfigError(f"runs = {missing}: no such folder; give run folders, or a pattern in quotes")
    folders = [os.path.normpath(folder) for folders in found.values() for folder in folders]
    return list(dict.fromkeys(folders))
