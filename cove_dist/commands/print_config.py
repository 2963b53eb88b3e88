"""``--print-config``: the composed configuration of a subcommand."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from cove_dist.config.composition import compose_yaml
from cove_dist.tasks.configuration import compose_run_config


def printed(name: str, overrides: Sequence[str]) -> str:
    """Return ``configs/<name>.yaml`` with its groups and the overrides, as YAML.

    Raises:
        ConfigError: An override is unknown or malformed.
    """
    composed = compose_run_config(overrides) if name == "train" else compose_yaml(name, overrides)
    return OmegaConf.to_yaml(composed).rstrip()
