"""Which settings a warm start takes over from the run that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cove_dist.config.overrides import flat, key_of, quoted, text_of
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.config_folders import find_file, options
from cove_dist.errors import ConfigError
from cove_dist.runs import CONFIG_FILE
from data_pipeline.schema import ENTITIES

OPEN_SECTIONS = ("model.", "embeddings.sharding.", "embeddings.pooling.")  # have keys that are in no YAML file
_OF_THIS_START = (
    *("data.", "output", "warm_start.", "trainer.checkpoint.resume"),
    *("trainer.debug", "trainer.device", "trainer.profile.", "trainer.schedule.", "trainer.max_steps"),
)
# Sections of classes that a group of the configuration chooses, by group: taken over whole or not at all
CLASS_SECTIONS = {"loss": "loss", "metric": "evaluation.metrics", "logger": "trainer.loggers"}
_NONE = object()


def expand_short_forms(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which ``warm_start=FOLDER`` and ``data=FOLDER`` name what they are short for."""
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "warm_start":
            found.append(f"warm_start.run={value}")
        elif key == "data" and (folder := _prepared_folder(override)) is not None:
            found += ["data=custom", f"data.path={quoted(str(folder))}"]
        else:
            found.append(override)
    return found


@dataclass(frozen=True)
class Inheritance:
    """The settings that a warm start takes over: those of the run to start from that the overrides leave open.

    Attributes:
        saved: Configuration of that run.
        given: Keys of the overrides.
    """

    saved: DictConfig
    given: frozenset[str]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Inheritance | None:
        """Return what the overrides make a run inherit; None without a warm start, and with an experiment.

        Raises:
            ConfigError: ``warm_start.run`` holds no run, or the overrides name no data.
        """
        named = [override for override in overrides if key_of(override) == "warm_start.run"]
        given = frozenset(map(key_of, overrides))
        run = text_of(named[-1]) if named else "None"
        if run == "None" or "experiment" in given:
            return None
        path = _resumed(overrides, run) or Path(run) / CONFIG_FILE
        if not path.is_file():
            raise ConfigError(f"warm_start.run = {run}: no {CONFIG_FILE} there; give the folder of a finished run")
        saved = read_yaml(path)
        if OmegaConf.select(saved, "model._target_") is None:
            raise ConfigError(f"{path}: names no model, so it is damaged or of something else; give a finished run")
        if not given & {"data", "data.path"}:
            old = OmegaConf.select(saved, "data.path")
            raise ConfigError(f"warm_start.run = {run}: give the data to train on, data=FOLDER (the run had {old})")
        return cls(saved, given)

    def groups(self) -> list[str]:
        """Return overrides that choose the groups of the run, unless the given overrides choose them.

        Raises:
            ConfigError: No file in ``configs/model/`` names the class of the run's model.
        """
        chosen = [] if "model" in self.given else [f"model={self._model_option()}"]
        quantized = any(OmegaConf.select(self.saved, f"quantizer.{entity}_levels") for entity in ENTITIES)
        if quantized and "quantizer" not in self.given:
            chosen.append("quantizer=cove")
        return chosen

    def take_over(self, composed: DictConfig) -> None:
        """Set what the overrides leave open."""
        whole = [section for group, section in CLASS_SECTIONS.items() if not self._is_given(section, group)]
        for section in whole:
            value = OmegaConf.select(self.saved, section)
            OmegaConf.update(composed, section, value, merge=False, force_add=True)
        for key, value in flat(plain(self.saved)).items():
            known = OmegaConf.select(composed, key, default=_NONE) is not _NONE
            chosen = any(key == section or key.startswith(f"{section}.") for section in CLASS_SECTIONS.values())
            if chosen or not self._is_open(key) or not (known or key.startswith(OPEN_SECTIONS)):
                continue
            OmegaConf.update(composed, key, value, force_add=True)

    def _is_given(self, section: str, group: str) -> bool:
        return group in self.given or any(key == section or key.startswith(f"{section}.") for key in self.given)

    def _is_open(self, key: str) -> bool:
        covered = any(key == each or key.startswith(f"{each}.") for each in self.given)
        return not covered and not key.startswith(_OF_THIS_START)

    def _model_option(self) -> str:
        wanted = OmegaConf.select(self.saved, "model._target_")
        for option in options("model"):
            path = find_file(f"model/{option}")
            if path is not None and read_yaml(path).get("_target_") == wanted:
                return option
        raise ConfigError(f"warm_start.run: no file in configs/model/ has _target_: {wanted}; choose it by model=…")


def _resumed(overrides: Sequence[str], run: str) -> Path | None:
    """Return the configuration of a run that began by this warm start and goes on: it needs the former run no more."""
    output = next((text_of(override) for override in overrides if key_of(override) == "output"), None)
    path = Path(output) / CONFIG_FILE if output else None
    if path is None or not path.is_file() or OmegaConf.select(read_yaml(path), "warm_start.run") != run:
        return None
    return path


def _prepared_folder(override: str) -> Path | None:
    """Return the folder of prepared data that ``data=FOLDER`` names; None for an option of the group."""
    value = override.partition("=")[2].strip("'\"")
    folder = Path(value).expanduser()
    return folder if value not in options("data") and (folder / "schema.json").is_file() else None
