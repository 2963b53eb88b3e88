"""From ``key=value`` overrides to the checked settings of a program; those of a run are in `tasks.configuration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from cove_dist.config.checks import check
from cove_dist.config.overrides import key_of, prepared
from cove_dist.config.run import DataConfig
from cove_dist.config.yaml_files import comment, compose_groups, unknown_key
from cove_dist.errors import ConfigError

T = TypeVar("T")

_EXAMPLES = {"run": "run=runs/movielens_deepfm", "runs": "'runs=runs/*'", "path": "path=data/aotm",
             "rows": "rows=new.parquet"}  # fmt: skip


def compose_yaml(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``configs/<name>.yaml`` of a program other than training with its groups and the overrides.

    Raises:
        ConfigError: An unknown key or group option (with the nearest known ones), or a malformed override.
    """
    overrides = prepared(overrides)
    composed = compose_groups(name, overrides)
    if name == "popularity":
        chosen = compose_groups(name, [override for override in overrides if key_of(override) == "data"])
        refuse_preparation(composed, {"data": chosen.data})
    return composed


def load_settings(kind: type[T], name: str, overrides: Sequence[str], missing: str | None = None) -> T:
    """Return the checked settings of a program: ``configs/<name>.yaml`` with the overrides.

    Args:
        kind: A settings dataclass.
        name, overrides: Name of the file, and overrides.
        missing: Remedy for keys without a default; None: a message per key.

    Raises:
        ConfigError: One line per wrong key; a key without a default that is not given.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(compose_yaml(name, overrides), throw_on_missing=False))
    known = [field.name for field in fields(cast(Any, kind))]
    for key in values.keys() - set(known):
        raise ConfigError(unknown_key(key, known))
    absent = [key for key, value in values.items() if value == "???"]
    if absent and missing is not None:
        raise ConfigError(f"{', '.join(absent)}: not set; {missing}")
    if absent:
        lines = (f"{key}: not set: {comment(name, key)}, as in {_EXAMPLES[key]}" for key in absent)
        raise ConfigError("\n".join(lines))
    return check(kind, values)


def refuse_preparation(composed: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Keep of ``data`` what training reads; refuse to change the rest, which is read when data is prepared."""
    data = composed.get("data")
    if not OmegaConf.is_dict(data):
        return
    for key in [key for key in data if key != "path" and data[key] != defaults["data"].get(key)]:
        raise ConfigError(
            f"data.{key} = {data[key]}: is read when data is prepared, not by training; use"
            f" cove prepare {key}=…, and name the prepared folder by data.path"
        )
    composed.data = {field.name: data[field.name] for field in fields(DataConfig) if field.name in data}
