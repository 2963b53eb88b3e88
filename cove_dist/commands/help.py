"""``--help``: a subcommand's docstring, and its settings as the YAML files state them, with their comments.

No program is imported and nothing is composed, so that help is quick: it shows files, not what overrides make of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from cove_dist.allowed_packages import KEY
from cove_dist.commands import Command
from cove_dist.config_folders import find_file, options
from cove_dist.errors import ConfigError

SHIPPED = {"experiment": "grid", "tune": "search"}  # subcommands that take a file, by name where it is shipped
_SUFFIX = "@_here_"


def help_of(name: str, command: Command, arguments: Sequence[str]) -> str:
    """Return the help text of a subcommand.

    Args:
        name, command: The subcommand.
        arguments: Of the command line: ``GROUP`` shows every option of a group, ``group=option`` chooses one.

    Raises:
        ConfigError: There is no such group, or no such option.
    """
    if command.config is None:
        return f"usage: cove {name}\n\n{_about(name)}"
    chosen = defaults_of(command.config)
    for argument in arguments:
        group, separator, option = argument.lstrip("+~").partition("=")
        if not separator and group in chosen:
            return _all_options(group)
        if not separator and name not in SHIPPED:
            raise _no_group(argument, [group for group in chosen if group != "task"])
        if group in chosen and not (group == "data" and Path(option, "schema.json").is_file()):  # prepared data
            chosen[group] = option
    if "trainer" in chosen and "task" in chosen:
        chosen["task"] = task = _task_of(chosen["model"])
        chosen["trainer"] = task if chosen["trainer"] in (None, "null") else chosen["trainer"]
    listed = [f"  {group}: {', '.join(options(group))}" for group in chosen if group != "task"]
    file = SHIPPED.get(name)
    return "\n".join(
        [
            f"usage: cove {name}{f' {file.upper()}' if file else ''} [key=value …]",
            f"       cove {name} [--help [GROUP] | --print-config] [--config-dir=FOLDER] [key=value …]",
            f"       with classes of your own: {KEY}=[my_package]",
            "",
            _about(name),
            *(["", f"files of {file}/: {', '.join(options(file))}"] if file else []),
            *(["", "groups, chosen by GROUP=OPTION:", *listed] if listed else []),
            "",
            "settings, with their defaults:",
            indent(_body(_path(command.config)), "  "),
            *(_section(group, option, name) for group, text in chosen.items() for option in _listed(text)),
        ]
    ).rstrip()


def _no_group(argument: str, groups: Sequence[str]) -> ConfigError:
    from cove_dist.config.yaml_files import did_you_mean  # imports Hydra

    allowed = f"Allowed: {', '.join(groups)}" if groups else "This command has none"
    return ConfigError(f"{argument}: no group of settings{did_you_mean(argument, groups)} {allowed}")


def _listed(text: str | None) -> list[str]:
    """Return the options of a group as an argument gives them: one, a list in brackets, or null."""
    options = (text or "null").strip("[]").split(",")
    return [option.strip() for option in options if option.strip() != "null"]


def _about(name: str) -> str:
    """Return the docstring of a subcommand's module, without importing it."""
    text = (Path(__file__).parent / f"{name}.py").read_text()
    return str(ast.get_docstring(ast.parse(text)))


def defaults_of(name: str) -> dict[str, str | None]:
    """Return the options that a YAML file chooses in its list of defaults, by group."""
    listed = _yaml(name).get("defaults", [])
    return {group: option for entry in listed if isinstance(entry, dict) for group, option in entry.items()}


def _task_of(model: str | None) -> str:
    """Return the task of an option of ``model``, from the path of its class where that is one of this package."""
    target = _yaml(f"model/{model}")["_target_"]
    shipped = re.match(r"cove_dist\.models\.(\w+)\.", target)
    if shipped:
        return shipped.group(1)
    from cove_dist.config.model_spec import model_class
    from cove_dist.tasks.configuration import task_of_class

    return task_of_class(model_class({"_target_": target}))


def _all_options(group: str) -> str:
    return "\n\n".join(_section(group, option).strip("\n") for option in options(group))


def _section(group: str, option: str | None, name: str = "prepare") -> str:
    """Return one option of a group as a section of YAML; the settings of a task are not a section.

    All subcommands except ``prepare`` read only the path of ``data``.
    """
    package = re.match(r"# @package (\S+)\n", _path(f"{group}/{option}").read_text())
    header = "" if package and package.group(1) == "_global_" else package.group(1) if package else group
    prefix = "  " if header else ""
    title = f"\n{group}={option}" if group != "task" else f"\nthe model's task, {option}"
    text = _text(f"{group}/{option}")
    if group == "data" and name != "prepare":
        text = "\n".join(re.findall(r"^path:.*$", text, flags=re.MULTILINE)) + "  # where the prepared data are"
    lines = [title, *([f"{header}:"] if header else []), indent(text, prefix)]
    return indent("\n".join(lines), "  ").replace("\n  \n", "\n\n")


def _text(name: str) -> str:
    """Return a file with the files that its list of defaults names before it, less the list itself."""
    path = _path(name)
    listed = [entry for entry in _yaml(name).get("defaults", []) if isinstance(entry, str)]
    group = name.rpartition("/")[0]
    parts = [_text(f"{group}/{entry.removesuffix(_SUFFIX)}") for entry in listed if entry != "_self_"]
    return "\n".join([*parts, _body(path)])


def _body(path: Path) -> str:
    """Return the text of a file without its list of defaults."""
    text = re.sub(r"^# @package .*\n", "", path.read_text())
    return re.sub(r"^defaults:\n(?:  .*\n|\n(?=  ))*\n?", "", text, flags=re.MULTILINE).strip("\n")


def _yaml(name: str) -> dict[str, Any]:
    """Return the content of a file; libyaml, where PyYAML has it, parses ten times as fast."""
    return yaml.load(_path(name).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _path(name: str) -> Path:
    path = find_file(name)
    if path is None:
        group, _, option = name.rpartition("/")
        raise ConfigError(f"{group} = {option}: no such option; allowed: {', '.join(options(group))}")
    return path
