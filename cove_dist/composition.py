"""From YAML groups and ``key=value`` overrides to a checked configuration, by Hydra's compose API."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from cove_dist.config import DataConfig, RunConfig
from cove_dist.errors import ConfigError

T = TypeVar("T")


def config_folder() -> Path:
    """``configs/`` of the checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent
    checkout = here.parent / "configs"
    return checkout if checkout.is_dir() else here / "configs"


def compose_yaml(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``configs/<name>.yaml`` with its groups and the overrides.

    Raises:
        ConfigError: an unknown key or group option (with the nearest known ones), or a malformed override.
    """
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            composed = compose(name, overrides=list(overrides))
            OmegaConf.resolve(composed)
            return composed
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(name, overrides, error)) from error


def load_run_config(overrides: Sequence[str]) -> tuple[RunConfig, DictConfig]:
    """The checked configuration of a training run, and the composed YAML to save with it."""
    composed = compose_yaml("train", overrides)
    return check_run_config(composed), composed


def check_run_config(composed: DictConfig) -> RunConfig:
    """Check types, ranges and cross-field rules; the model's arguments against its signature.

    Raises:
        ConfigError: one line per wrong key, with its value and what is allowed.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(composed))
    data = values.get("data") or {}
    values["data"] = {field.name: data.get(field.name) for field in fields(DataConfig)}
    config = check(RunConfig, values)
    model_class, arguments = target(config.model, "model")
    check_arguments(model_class, arguments, "model")
    config.check_evaluation(model_class.task)
    config.check_quantizer(model_class.task)
    return config


def check(kind: type[T], values: dict[str, Any]) -> T:
    """Build a settings dataclass from plain values; a `ConfigError` lists every wrong key."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(_lines(error, ())) from error


def target(section: dict[str, Any], key: str) -> tuple[type, dict[str, Any]]:
    """The class a section's ``_target_`` names, and the section's other keys."""
    arguments = {name: value for name, value in section.items() if name != "_target_"}
    name = section.get("_target_")
    try:
        return get_class(str(name)), arguments
    except Exception as error:  # Hydra raises ImportError, ValueError or its own, by the way the path is wrong
        raise ConfigError(f"{key}._target_ = {name}: not a class that can be imported: {error}") from error


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """Check arguments against the annotations of keyword parameters; return them converted.

    Raises:
        ConfigError: an argument is unknown, missing, or not of its annotated type and range.
    """
    parameters = inspect.signature(function).parameters.values()
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    keyword = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    known = {p.name: (hints[p.name], ... if p.default is inspect.Parameter.empty else p.default) for p in keyword}
    model = create_model(
        function.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **known
    )
    try:
        checked = model.model_validate(arguments)
    except ValidationError as error:
        raise ConfigError(_lines(error, (key,), known)) from error
    return {name: getattr(checked, name) for name in arguments}


def _lines(error: ValidationError, prefix: tuple[str, ...], known: Sequence[str] | dict[str, Any] = ()) -> str:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in (*prefix, *item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            message = f"unknown key; allowed: {', '.join(known)}" if known else "unknown key"
            lines.append(f"{path}: {message}")
        elif item["type"] == "value_error":
            lines.append(f"{path}.{message}" if path else message)
        else:
            lines.append(f"{path} = {item['input']}: {message[0].lower()}{message[1:]}")
    return "\n".join(lines)


def _explain(name: str, overrides: Sequence[str], error: Exception) -> str:
    """Hydra's message, and for an unknown key the nearest keys there are."""
    message = str(error).strip().splitlines()[0]
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {message}. A text with = or spaces needs quotes of its own: 'common=[\"data=toys\"]'"
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown is None:
        options = re.findall(r"^\t(\S+)$", str(error), flags=re.MULTILINE)
        return f"{message} Allowed: {', '.join(options)}" if options else message
    key = unknown.group(1)
    groups = [o for o in overrides if o.split("=")[0] != key and (config_folder() / o.split("=")[0]).is_dir()]
    near = difflib.get_close_matches(key, keys(compose_yaml(name, groups)), n=3, cutoff=0.4)
    return (
        f"{key}: unknown key" + (f"; did you mean {' or '.join(near)}?" if near else "") + " All keys: --print-config"
    )


def keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key of a composed configuration."""
    found = []
    for name, value in config.items_ex(resolve=False):
        path = f"{prefix}{name}"
        found += [path, *keys(value, path + ".")] if OmegaConf.is_dict(value) else [path]
    return found
