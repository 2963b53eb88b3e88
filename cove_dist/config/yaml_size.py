"""A bound on what a YAML file becomes when its aliases are followed: ten lines can stand for more than memory holds."""

from __future__ import annotations

from pathlib import Path

import yaml

from cove_dist.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # the largest shipped configuration has a few hundred


def check_yaml_size(path: Path) -> None:
    """Refuse a YAML file that is too large, as it is or once its aliases are followed.

    Raises:
        ConfigError: It is.
        OSError, yaml.YAMLError, UnicodeDecodeError: It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: {size:,} bytes; a configuration has at most {MAX_BYTES:,}")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        values = 0 if root is None else _values(root, {})
    except RecursionError as error:
        raise ConfigError(f"{path}: its values are nested too deeply, or contain themselves") from error
    if values > MAX_VALUES:
        raise ConfigError(
            f"{path}: its aliases stand for {values:,} values; a configuration has at most {MAX_VALUES:,}"
        )


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node, those of an alias wherever it stands; recurses for ever if it contains itself."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_values(child, known) for child in children)
    return known[id(node)]
