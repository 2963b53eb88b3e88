"""``configs/``: YAML files composed by Hydra's compose API, and the messages for what they do not have."""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cove_dist.config.overrides import key_of, quoted, text_of
from cove_dist.config.yaml_size import check_yaml_size
from cove_dist.config_folders import config_folder, is_group, own_folders
from cove_dist.errors import ConfigError

FILE = "file"  # the key by which a program passes on a grid or search file, whose keys replace its defaults
_WITH_FILE = ("experiment", "tune")


def compose_groups(
    name: str,
    overrides: Sequence[str],
    *,
    with_hydra: bool = False,
    explain: Callable[[str, Sequence[str]], str] | None = None,
) -> DictConfig:
    """Compose ``configs/<name>.yaml`` with the groups and keys of the overrides.

    Args:
        name: Name of the primary file.
        overrides: In Hydra's grammar; ``file=PATH`` of an experiment or a search is a YAML file over the primary.
        with_hydra: Keep Hydra's own section, which says what was chosen of each group.
        explain: Makes the message for an unknown key from the key and the known ones; None: `unknown_key`.

    Raises:
        ConfigError: An unknown key or group option (with the nearest known ones), or a malformed override.
    """
    try:
        with ExitStack() as stack:
            given = _with_search_path(name, overrides, stack)
            stack.enter_context(initialize_config_dir(version_base="1.3", config_dir=str(config_folder())))
            stack.enter_context(_without_groups_of_hydra())
            composed = compose(name, overrides=given, return_hydra_config=with_hydra)
            if not with_hydra:
                OmegaConf.resolve(composed)
            return composed
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(_explain(name, overrides, error, explain or unknown_key)) from error


@contextmanager
def _without_groups_of_hydra() -> Iterator[None]:
    """Leave out Hydra's launcher, sweeper, logging and help, which nothing here reads: they double the time to compose.

    Hydra's own section is put back at the end, for a program that uses Hydra and calls this package.
    """
    sections = ConfigStore.instance().repo["hydra"]
    usual = sections["config.yaml"]
    sections["config.yaml"] = _hydra_alone()
    try:
        yield
    finally:
        sections["config.yaml"] = usual


@cache
def _hydra_alone() -> ConfigNode:
    return ConfigNode("config.yaml", OmegaConf.structured(HydraConf(defaults=[])), "hydra", None, "cove_dist")


def keys(config: DictConfig | Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return every dotted key of a configuration, composed or plain; a section comes before the keys in it."""
    values = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    found = []
    for name, value in cast(Mapping[str, Any], values).items():
        path = prefix + str(name)
        found += [path, *keys(value, path + ".")] if isinstance(value, dict) else [path]
    return found


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries, lists and values."""
    return cast(dict[str, Any], OmegaConf.to_container(config))


def read_yaml(path: Path) -> DictConfig:
    """Read a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: It cannot be read, is not YAML, is too large, or holds something else.
    """
    try:
        check_yaml_size(path)
        config = OmegaConf.load(path)
    except OSError as error:
        reason = error.strerror or "it holds no mapping"  # of a file with a single value, OmegaConf raises IOError
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except (YAMLError, ValueError, OmegaConfBaseException) as error:  # ValueError: not UTF-8; too many digits
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: holds no mapping; needed are lines of the form key: value")
    return config


def comment(name: str, key: str) -> str:
    """Return the comment of ``configs/<name>.yaml`` at the line of a key without a default."""
    text = (config_folder() / f"{name}.yaml").read_text()
    found = re.search(rf"^{re.escape(key)}: .*?# *(.*)$", text, flags=re.MULTILINE)
    return found.group(1) if found else ""


def _with_search_path(name: str, overrides: Sequence[str], stack: ExitStack) -> list[str]:
    """Return overrides by which Hydra reads own folders, and lays a copy of a grid or search file over the primary.

    It is a copy because the path of the file may hold any character.
    """
    given = [override for override in overrides if name in _WITH_FILE and key_of(override) == FILE]
    rest, places = [override for override in overrides if override not in given], own_folders()
    if given:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / FILE).mkdir()
        shutil.copyfile(text_of(given[-1]), folder / FILE / "given.yaml")
        places.append(folder)
        rest.insert(0, f"+{FILE}@_global_=given")
    for place in places:
        for path in sorted(place.rglob("*.yaml")):
            check_yaml_size(path)
    if not places:
        return rest
    return [f"hydra.searchpath=[{','.join(quoted(f'file://{place}') for place in places)}]", *rest]


def _explain(
    name: str, overrides: Sequence[str], error: Exception, explain: Callable[[str, Sequence[str]], str]
) -> str:
    """Return Hydra's message, and for an unknown key or option the nearest existing ones."""
    message = str(error).strip().splitlines()[0]
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error.override, message)
    groups = [override for override in overrides if is_group(key_of(override))]
    failed = isinstance(error, ValueError) or message.startswith("Error merging override")
    if failed and (entry := _entry_of_list(name, overrides, groups)):
        return entry
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown is None:
        found = re.findall(r"^\t(\S+)$", str(error), flags=re.MULTILINE)
        wanted = re.search(r"'([^']+)'\s*$", message)
        group, _, option = wanted.group(1).partition("/") if wanted else ("", "", "")
        near = did_you_mean(option.rpartition("/")[2], found) if wanted else "."
        folder = "; or the folder of prepared data" if group == "data" and name != "prepare" else ""
        return f"{message}{near} Allowed: {', '.join(found)}{folder}" if found else message
    key, inner = unknown.group(1), str(getattr(error.__cause__, "full_key", ""))
    key = inner if inner.startswith(f"{key}.") else key  # of a mapping, its unknown key
    return explain(key, keys(compose_groups(name, [each for each in groups if key_of(each) != key])))


def _entry_of_list(name: str, overrides: Sequence[str], groups: Sequence[str]) -> str | None:
    """Return the message for the first override that sets a key of a list; None if there is none."""
    if list(groups) == list(overrides):  # no keys are set
        return None
    composed = compose_groups(name, groups)
    for key in map(key_of, overrides):
        section = key.rpartition(".")[0]
        if section and OmegaConf.is_list(OmegaConf.select(composed, section)):
            return f"{key}: {section} is a list, which has no such key; set it whole: {section}=[…]"
    return None


def _explain_syntax(override: str, message: str) -> str:
    if override.startswith("-") or not re.search(r"[=~]", override):
        return f"{override}: settings have the form key=value, without dashes"
    return (
        f"{override}: {message}. Quote values that contain '=', spaces or letters beyond ASCII:"
        " 'common=[\"data=toys\"]'; keys of mappings cannot contain them, except in a YAML file of --config-dir"
    )


def did_you_mean(name: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
    """Return ``; did you mean A or B?``, or a full stop where no known name is near.

    Args:
        name: The unknown name.
        known: Allowed names. A key of another section with the same last part is nearer than any misspelling.
        others: Names that are only suggested for their last part.
    """
    near = _same_last_part(name, known) or _same_last_part(name, others)
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(near)}?" if near else "."


def _same_last_part(name: str, known: Sequence[str]) -> list[str]:
    last = name.rpartition(".")[2]
    return difflib.get_close_matches(name, [key for key in known if key.rpartition(".")[2] == last], n=3, cutoff=0.0)


def unknown_key(key: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
    """Return the message for a key that does not exist; see `did_you_mean`."""
    return f"{key}: unknown key{did_you_mean(key, known, others)} All keys: --print-config"
