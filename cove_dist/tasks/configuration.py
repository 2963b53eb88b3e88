"""The configuration of a run: from ``key=value`` overrides, or as a run folder has it.

Its settings depend on the task of its model. So the model is found first; then the sections of its task are composed,
with the trainer of this task where none is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from cove_dist.config import DataConfig, RunConfig
from cove_dist.config.checks import check
from cove_dist.config.composition import refuse_preparation
from cove_dist.config.model_spec import ModelSpec, model_class
from cove_dist.config.overrides import key_of, prepared, quoted, value_of
from cove_dist.config.rules import refuse_idle
from cove_dist.config.yaml_files import compose_groups, keys, read_yaml
from cove_dist.config_folders import options
from cove_dist.errors import ConfigError
from cove_dist.loggers.group import resolve_loggers
from cove_dist.models.base import Model
from cove_dist.runs import CONFIG_FILE
from cove_dist.tasks.inheritance import Inheritance, expand_short_forms
from cove_dist.tasks.keys import FREE, explain_key, foreign_keys, with_keys_of_sections
from cove_dist.tasks.new_runs import check_quantizer, run_there
from cove_dist.tasks.registry import TASKS

GROUPS = ("data", "model", "quantizer", "trainer", "experiment")
_NAMING = ("data", "data.path", "model", "model._target_", "quantizer", "quantizer.user_levels",
           "quantizer.item_levels", "seed")  # fmt: skip


def compose_run_config(overrides: Sequence[str]) -> DictConfig:
    """Compose ``configs/train.yaml`` with its groups, the sections of the model's task and the overrides.

    Raises:
        ConfigError: An unknown key or group option (with the nearest known ones), or a malformed override.
    """
    overrides, inheritance = _run_overrides(prepared(overrides))
    return _compose_run(overrides, _choices(overrides), inheritance)


def load_run_config(overrides: Sequence[str], *, replaces: bool = False) -> tuple[RunConfig, DictConfig]:
    """Return the checked configuration of a training run, and the composed YAML to save with it.

    A run that is in its folder keeps what an earlier version accepted. So it can be resumed and described.

    Args:
        overrides: Overrides of ``configs/train.yaml``.
        replaces: Whether the run takes the place of the one in its folder, and has to be acceptable as a new one.

    Raises:
        ConfigError: One line per wrong key, with its value and what is allowed; a setting that would do nothing.
    """
    overrides, inheritance = _run_overrides(prepared(overrides))
    choices = _choices(overrides)
    composed = _compose_run(overrides, choices, inheritance)
    _refuse_unknown(composed, choices)
    config = check_run_config(composed)
    resolve_loggers(config.trainer.loggers)
    loggers = [option.strip(" '\"") for option in (value_of(overrides, "logger") or "").strip("[]").split(",")]
    if len(loggers) > 1 and "none" in loggers:
        raise ConfigError(f"logger = [{','.join(loggers)}]: none stands for no logger; give it alone, or remove it")
    there = {} if replaces else run_there(config)
    refuse_idle(config, composed, _defaults(choices), TASKS[choices.task].rules, there)
    if not there:
        check_quantizer(config, choices.options["quantizer"])
    return config, composed


def _refuse_unknown(composed: DictConfig, choices: Choices) -> None:
    """Refuse what an experiment or ``+key=value`` adds: keys of other tasks, and keys that there are not."""
    known, foreign = keys(_defaults(choices)), foreign_keys(choices.task)
    for key in reversed(keys(composed)):  # sections come after what is in them
        free = key.startswith(FREE)
        if key in foreign or (key not in known and not free):
            raise ConfigError(explain_key(key, known, choices.task))


def check_run_config(composed: DictConfig) -> RunConfig:
    """Check types, ranges and cross-field rules; the model's arguments against its signature.

    Raises:
        ConfigError: One line per wrong key, with its value and what is allowed.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(composed))
    for section in ("data", "model"):
        if not isinstance(values.get(section), dict):
            raise ConfigError(f"{section}: missing")
    values["data"] = {f.name: values["data"][f.name] for f in fields(DataConfig) if f.name in values["data"]}
    spec = ModelSpec.resolve(values["model"])
    task = TASKS[task_of_class(spec.kind)]
    config = check(task.config, values | {"model": spec})
    task.check(config)
    return config


def load_saved_run(run: str) -> tuple[RunConfig, Path]:
    """Read the configuration of a run folder.

    Raises:
        ConfigError: The folder holds no run, or the configuration is invalid.
    """
    folder = Path(run)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"run = {run}: no {CONFIG_FILE} there; give the folder that training named")
    try:
        return check_run_config(read_yaml(path)), folder
    except ConfigError as error:
        raise ConfigError(f"{path}: not the configuration of a run of this version: {error}") from error


def task_of_class(kind: type[Model]) -> str:
    """Return the name of the task that trains a class of models.

    Raises:
        ConfigError: The class names no task that is registered.
    """
    task = getattr(kind, "task", None)
    if task not in TASKS:
        raise ConfigError(
            f"model._target_ = {kind.__module__}.{kind.__name__}: task = {task}: allowed are {', '.join(TASKS)}"
        )
    return task


@dataclass(frozen=True)
class Choices:
    """What is chosen for a run.

    Attributes:
        task: Task of the model.
        options: Option of each group; None where nothing is chosen.
    """

    task: str
    options: Mapping[str, str | None]


def _choices(overrides: Sequence[str]) -> Choices:
    if value_of(overrides, "task") is not None:
        raise ConfigError("task: follows from the model, and is not to be given")
    for group in ("data", "model", "quantizer"):
        if any(o in (f"{group}=null", f"~{group}") for o in overrides):
            raise ConfigError(f"{group}: must be chosen; allowed: {', '.join(options(group))}")
    return _chosen(tuple(o for o in overrides if key_of(o) in (*GROUPS, "model._target_")))


@cache
def _chosen(overrides: tuple[str, ...]) -> Choices:
    composed = compose_groups("train", overrides, with_hydra=True)
    chosen = {group: composed.hydra.runtime.choices.get(group) for group in GROUPS}
    section = cast(dict[str, Any], OmegaConf.to_container(composed.model))
    task, trainer = task_of_class(model_class(section)), chosen["trainer"]
    if trainer in TASKS and trainer != task:
        raise ConfigError(
            f"trainer = {trainer}: is for {TASKS[trainer].title}; models of the task {task} need trainer={task}, which"
            " is chosen without this setting"
        )
    return Choices(task, chosen)


def _run_overrides(overrides: Sequence[str]) -> tuple[list[str], Inheritance | None]:
    """Return the overrides with the groups of the run to start from, and what else is taken over from it."""
    given = expand_short_forms(with_keys_of_sections(overrides))
    inheritance = Inheritance.of(given)
    return (given, None) if inheritance is None else ([*inheritance.groups(), *given], inheritance)


def _compose_run(overrides: Sequence[str], choices: Choices, inheritance: Inheritance | None) -> DictConfig:
    """Compose ``configs/train.yaml`` with the sections of the model's task; take settings over; name ``output``."""
    trainer = [] if choices.options["trainer"] else [f"trainer={choices.task}"]
    composed = compose_groups(
        "train",
        [*overrides, *trainer, f"task={choices.task}"],
        explain=lambda key, known: explain_key(key, known, choices.task),
    )
    if inheritance is not None:
        inheritance.take_over(composed)
    refuse_preparation(composed, _defaults(choices))
    if composed.get("output") is None:
        composed.output = _output_name(composed, choices, overrides)
    return composed


@cache
def _composed_of(*options: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(compose_groups("train", options)))


def _defaults(choices: Choices) -> dict[str, Any]:
    """Return the values of the chosen groups, without those of the experiment and of the command line."""
    chosen = {"trainer": choices.task} | {k: v for k, v in choices.options.items() if v is not None}
    options = (f"{group}={quoted(chosen[group])}" for group in ("data", "quantizer", "trainer"))
    return _composed_of(*options, f"task={choices.task}")


def _output_name(composed: DictConfig, choices: Choices, overrides: Sequence[str]) -> str:
    """Return ``runs/EXPERIMENT``, or the names of data, quantizer, model and seed if one of them was changed."""
    experiment = choices.options["experiment"]
    if experiment and not any(key_of(override) in _NAMING for override in overrides):
        return f"runs/{experiment}"
    data = Path(str(OmegaConf.select(composed, "data.path"))).name
    model = str(composed.model._target_).rpartition(".")[2].lower()
    return "runs/" + "_".join([data, *_quantizer_name(composed), model, f"seed{composed.get('seed')}"])


def _quantizer_name(composed: DictConfig) -> list[str]:
    users, items = (OmegaConf.select(composed, f"quantizer.{e}_levels") is not None for e in ("user", "item"))
    if users and items:
        return ["cove"]
    return ["cove_users"] if users else ["cove_items"] if items else []
