"""Which settings differ between a run or a search that is there and the configuration that it is to have here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig

from cove_dist.config import RunConfig
from cove_dist.config.changes import has_effect
from cove_dist.config.overrides import flat
from cove_dist.config.yaml_files import plain

# Sections whose keys are not the same for all runs, in which a key that only one of the configurations has is a change,
# except defaults, which earlier versions did not have.
_OPEN = ("loss", "embeddings.pooling", "embeddings.sharding")


def changed_settings(
    there: Mapping[str, Any],
    config: RunConfig,
    composed: DictConfig,
    given: Collection[str],
    ignored: Collection[str] = (),
) -> list[str]:
    """Return the settings that differ and can change a metric, as ``key: there, here``.

    A key that is not there, because it did not exist then, counts only where it is given here. What a model's section
    leaves out is the constructor's default.

    Args:
        there: Composed configuration that is there.
        config, composed: Configuration here, checked and as composed.
        given: Keys of its overrides.
        ignored: Keys that are not compared.
    """
    here = plain(composed)
    models = {"there": there.get("model") or {}, "here": here["model"]}
    if models["there"].get("_target_") == models["here"]["_target_"]:
        models = {where: config.model.with_defaults(section) for where, section in models.items()}
    old, new = flat({**there, "model": models["there"]}), flat({**here, "model": models["here"]})
    compared = [key for key in new if (key in old or key in given) and has_effect(key)]
    compared += [key for key in {**new, **old} if _is_open(key) and not key.endswith(".default")]
    return [
        f"{key}: {old.get(key)} there, {new.get(key)} here"
        for key in dict.fromkeys(compared)
        if old.get(key) != new.get(key) and key not in ignored
    ]


def _is_open(key: str) -> bool:
    return any(key == section or key.startswith(section + ".") for section in _OPEN)
