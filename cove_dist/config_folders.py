"""Locations of the YAML files of ``configs/`` and of user folders, and the options of a group.

Nothing here imports torch or Hydra, so that help and shell completion are fast.
"""

from __future__ import annotations

import os
from pathlib import Path

from cove_dist.errors import ConfigError

OWN_FOLDERS = "COVE_CONFIG_DIR"  # an environment variable, so that child processes inherit it


def config_folder() -> Path:
    """Return ``configs/`` of the checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parent / "configs"
    return checkout if checkout.is_dir() else here / "configs"


def own_folders() -> list[Path]:
    """Return the folders given by ``--config-dir`` or by the environment variable `OWN_FOLDERS`."""
    return [Path(folder) for folder in os.environ.get(OWN_FOLDERS, "").split(os.pathsep) if folder]


def add_own_folder(folder: str) -> None:
    """Add a folder with user-defined groups, such as ``FOLDER/model/mine.yaml``, for this process and its children."""
    known = [str(path) for path in own_folders()]
    os.environ[OWN_FOLDERS] = os.pathsep.join(dict.fromkeys([*known, os.path.abspath(folder)]))


def check_own_folders() -> None:
    """Refuse folders that Hydra would silently ignore.

    Raises:
        ConfigError: A folder does not exist, or has a file of the same name as another folder.
    """
    seen = {path.relative_to(config_folder()) for path in config_folder().rglob("*.yaml")} if own_folders() else set()
    for folder in own_folders():
        if not folder.is_dir():
            raise ConfigError(f"--config-dir = {folder}: no such folder; it holds groups, as FOLDER/model/mine.yaml")
        found = {path.relative_to(folder) for path in folder.rglob("*.yaml")}
        if twice := sorted(map(str, found & seen)):
            raise ConfigError(f"--config-dir = {folder}: {', '.join(twice)}: this name is taken; choose another")
        seen |= found


def folders() -> list[Path]:
    """Return all folders with configuration files, the shipped one first."""
    return [config_folder(), *own_folders()]


def options(group: str) -> list[str]:
    """Return the names of the files of a group."""
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})


def is_group(key: str) -> bool:
    """Return whether a key chooses a file of a group, such as ``model``."""
    return any((folder / key).is_dir() for folder in folders()) if key else False


def find_file(name: str) -> Path | None:
    """Return the file ``NAME.yaml`` of a folder, such as ``model/deepfm``, or None if it does not exist."""
    paths = (folder / f"{name}.yaml" for folder in folders())
    return next((path for path in paths if path.is_file()), None)
