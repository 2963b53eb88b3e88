"""What searches have found for the pairs of a grid, read from one or more ``best.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError

Pairs = dict[tuple[str, str], dict[str, Any]]  # (model, quantizer): {overrides, metric, value, trials}


def read_tuned(files: str | Sequence[str] | None) -> Pairs:
    """Read the pairs of searches: those of all files together.

    Raises:
        ConfigError: A file is not there or is none of ``cove tune``, or two files have the same pair.
    """
    pairs: Pairs = {}
    origin: dict[tuple[str, str], str] = {}
    for file in [files] if isinstance(files, str) else files or []:
        for pair, found in _read(file).items():
            if pair in pairs:
                raise ConfigError(f"tuned: {'/'.join(pair)} is in {origin[pair]} and in {file}; give one of them")
            pairs[pair], origin[pair] = found, file
    return pairs


def _read(file: str) -> Pairs:
    if not Path(file).is_file():
        raise ConfigError(f"tuned = {file}: no such file; make it by cove tune, or give tuned=null")
    content: Any = plain(read_yaml(Path(file)))
    try:
        return {
            (model, quantizer): {**found, "overrides": tuple(found["overrides"])}
            for model, quantizers in content["pairs"].items()
            for quantizer, found in quantizers.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"tuned = {file}: is no file of best settings; cove tune writes it as best.yaml") from error
