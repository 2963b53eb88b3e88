"""What a grid and a search have in common: models and quantizers, each a list of overrides, and how to run them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from cove_dist import config_folders
from cove_dist.config import settings
from cove_dist.config.checks import check
from cove_dist.config.composition import load_settings
from cove_dist.config.yaml_files import FILE, did_you_mean, read_yaml
from cove_dist.config_folders import options
from cove_dist.errors import ConfigError
from cove_dist.types import Folder, PositiveInt, Text

Overrides = tuple[str, ...]


@settings
class ExperimentConfig:
    title: Text
    output: Folder
    common: Overrides
    models: dict[str, Overrides]
    quantizers: dict[str, Overrides]
    only: tuple[str, ...] | None
    processes: PositiveInt
    threads: PositiveInt
    jobs: PositiveInt

    def __post_init__(self) -> None:
        for key in ("models", "quantizers"):
            names: Mapping[str, Overrides] = getattr(self, key)
            wrong = [name for name in names if not re.fullmatch(r"[\w+.-]+", name)]
            if wrong or not names:
                raise ValueError(f"{key} = {wrong or '{}'}: needs names of letters, digits and _+.-: they name folders")
        for pattern in self.only or ():
            if not any(fnmatchcase("/".join(pair), pattern) for pair in self.all_pairs()):
                raise ValueError(f"only: {pattern} is no model/quantizer of this file")

    def all_pairs(self) -> list[tuple[str, str]]:
        """Return every (model, quantizer)."""
        return [(model, quantizer) for model in self.models for quantizer in self.quantizers]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the selected pairs."""
        return [pair for pair in self.all_pairs() if any(fnmatchcase("/".join(pair), p) for p in self.only or ("*",))]

    def of_others(self, quantizers: Collection[str]) -> dict[str, Any]:
        """Return what is left of further settings, by key, when only these quantizers are left."""
        return {}


P = TypeVar("P", bound=ExperimentConfig)


def load_experiment(kind: type[P], name: str, overrides: Sequence[str], missing: str) -> tuple[P, P]:
    """Load the settings of a grid or a search.

    Args:
        kind, name, overrides, missing: See `load_settings`.

    Returns:
        The file as a whole, and without the models and quantizers that ``~models.NAME`` and ``~quantizers.NAME`` drop,
        whose names further settings may have.

    Raises:
        ConfigError: One line per wrong key; a dropped name is not in the file.
    """
    dropped = [override for override in overrides if re.fullmatch(r"~(models|quantizers)\.[^=]+", override)]
    whole = load_settings(kind, name, [override for override in overrides if override not in dropped], missing)
    left: dict[str, dict[str, Overrides]] = {"models": dict(whole.models), "quantizers": dict(whole.quantizers)}
    for key, _, gone in (override[1:].partition(".") for override in dropped):
        if left[key].pop(gone, None) is None:
            known = list(left[key])
            raise ConfigError(f"~{key}.{gone}: not there{did_you_mean(gone, known)} {key} has {', '.join(known)}")
    if not dropped:
        return whole, whole
    return whole, check(kind, asdict(whole) | left | whole.of_others(left["quantizers"]))


def file_arguments(group: str, arguments: Sequence[str]) -> list[str]:
    """Turn a YAML file among the arguments, by path or by the name of a shipped one, into Hydra overrides.

    The file's keys take the place of the program's defaults, and ``key=value`` arguments that of the file's.

    Args:
        group: Group of the shipped files, a folder in ``configs/``.
        arguments: Arguments of the command line. At most one is a path or has no ``=``.

    Raises:
        ConfigError: There is no such file.
    """
    named = [argument for argument in arguments if _names_a_file(argument)]
    if not named:
        return list(arguments)
    if len(named) > 1:
        raise ConfigError(f"{' '.join(named)}: give one file; other arguments have the form key=value")
    path = find_file(group, named[0])
    return [f"{FILE}={path}", *(argument for argument in arguments if argument != named[0])]


def _names_a_file(argument: str) -> bool:
    # unlike Path.is_file, os.path.isfile is False for a long list of overrides, which no file name can be
    return not argument.startswith("~") and ("=" not in argument or os.path.isfile(argument))


def find_file(group: str, name: str) -> Path:
    """Find the file at the path ``name``, or else the shipped file of that name."""
    for path in (Path(name), config_folders.find_file(f"{group}/{Path(name).stem}")):
        if path is not None and path.is_file():
            _check_syntax(path)
            return path.resolve()
    near = did_you_mean(Path(name).stem, options(group))
    raise ConfigError(f"{name}: no such file, nor a shipped one{near} {group}/ has {shipped(group)}")


def shipped(group: str) -> str:
    """Return the names of the shipped files of a group."""
    return ", ".join(options(group))


def _check_syntax(path: Path) -> None:
    """Refuse a file that is not YAML, or holds no mapping."""
    try:
        read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"{error}. An override with a comma or a bracket needs quotes") from error


def merged(*groups: Sequence[str]) -> Overrides:
    """Merge overrides in order; of several for one key, keep the last."""
    return tuple({override.split("=")[0]: override for group in groups for override in group}.values())
