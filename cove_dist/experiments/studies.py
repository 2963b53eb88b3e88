"""Optuna studies, one a pair, in one SQLite file: what is done, what was interrupted, what to try next.

A training is known by its folder: a trial that was interrupted is queued again with its parameters and its folder, so
that it resumes from its checkpoint, and counts once.
"""

from __future__ import annotations

import json
import logging
import math
import zlib
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, cast

import optuna
from omegaconf import DictConfig
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from cove_dist.config import RunConfig
from cove_dist.config.overrides import key_of
from cove_dist.config.yaml_files import plain
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import Direction, direction
from cove_dist.experiments.changed import changed_settings
from cove_dist.experiments.search import SearchConfig, defaults
from cove_dist.tasks.configuration import load_run_config
from data_pipeline.fingerprint import data_fingerprint

logger = logging.getLogger(__name__)

STUDY_FILE = "study.db"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_DEFINITION, _FOLDER, DEFAULTS, _STARTS = "definition", "folder", "defaults", "starts"
_OF_DATA = {"data.path", "data.name"}  # the data are compared by their fingerprints


class PairStudy:
    """The study of one pair. Its methods may be called from several threads.

    Args:
        search: The settings.
        model, quantizer: The pair.
        storage: Storage of all studies of the search, an SQLite file.

    Raises:
        ConfigError: A wrong configuration, or the file holds a search of other settings.
    """

    _lock = Lock()  # of all studies: they share the file
    writing = Lock()  # of the files that follow from them

    def __init__(self, search: SearchConfig, model: str, quantizer: str, storage: BaseStorage) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.model, self.quantizer = search, model, quantizer
        self.parameters = search.parameters(model, quantizer)
        self.config, self.composed = self._composed()
        self._study = optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction="maximize" if self.mode == "max" else "minimize",
            pruner=self._pruner(),
            load_if_exists=True,
        )
        self._check_definition()
        self._queue_interrupted()
        self._queue_starts()

    @property
    def name(self) -> str:
        return f"{self.model}/{self.quantizer}"

    @property
    def file(self) -> Path:
        """The file of all studies of the search."""
        return Path(self.search.output) / STUDY_FILE

    @property
    def metric(self) -> str:
        return self.config.trainer.early_stopping.metric

    @property
    def mode(self) -> Direction:
        return direction(self.metric)

    def _composed(self) -> tuple[RunConfig, DictConfig]:
        fixed = self.search.fixed(self.model, self.quantizer)
        try:
            config, composed = load_run_config(fixed)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        self.defaults, self.not_default = defaults(self.parameters, composed)
        if self.not_default:
            reasons = "; ".join(self.not_default)
            logger.warning("%s: %s: the configuration without a search is not tried", self.name, reasons)
        return config, composed

    def _pruner(self) -> BasePruner:
        if self.search.prune_after is None:
            return NopPruner()
        return MedianPruner(n_startup_trials=self.search.startup_trials, n_warmup_steps=self.search.prune_after)

    def _check_definition(self) -> None:
        """Refuse to continue a study with other settings or data; let a new one start with the defaults.

        The defaults that are in the space are those of the first trial, the sampler chooses the other parameters.
        What an earlier version did not record, and the fingerprint of data that were not prepared, is recorded now.
        """
        here = self._definition()
        there = self._study.user_attrs.get(_DEFINITION)
        if there is None:
            self._study.set_user_attr(_DEFINITION, here)
            if self.defaults:
                self._study.enqueue_trial(self.defaults, user_attrs={} if self.not_default else {DEFAULTS: True})
            return
        named = ("overrides", "space", "metric")
        changed = [f"{key}: {there[key]} there, {here[key]} here" for key in named if there[key] != here[key]]
        changed = changed or self._changed_behind(there, here)
        if changed:
            raise ConfigError(
                f"{self.file}: {self.name} was searched with other settings:"
                f" {'; '.join(changed)}. Give another output, or remove the folder."
            )
        known = {key: value for key, value in there.items() if value is not None}
        if not here.keys() <= known.keys():
            self._study.set_user_attr(_DEFINITION, here | known)

    def _definition(self) -> dict[str, Any]:
        """Return what trials have in common, as JSON: by its text, as composed, and the fingerprint of the data."""
        given = {
            "overrides": self.search.fixed(self.model, self.quantizer),
            "space": {name: asdict(cast(Any, parameter)) for name, parameter in self.parameters.items()},
            "metric": self.metric,
            "configuration": plain(self.composed),
            "data": self._fingerprint(),
        }
        return json.loads(json.dumps(given))

    def _fingerprint(self) -> str | None:
        """Return the fingerprint of the prepared data; None where they are not there, and nothing can be trained."""
        path = self.config.data.path
        return data_fingerprint(path) if (Path(path) / "schema.json").is_file() else None

    def _changed_behind(self, there: dict[str, Any], here: dict[str, Any]) -> list[str]:
        """Return what has changed behind the same overrides: in YAML files that they name, or in the data."""
        if "configuration" not in there:
            logger.warning(
                "%s: %s was begun by an earlier version, which did not record its configuration and data: whether they"
                " are the same is not known; those found now are recorded, and compared from now on",
                self.file, self.name,
            )  # fmt: skip
            return []
        searched = {key for parameter in self.parameters.values() for key in parameter.keys}
        given = set(map(key_of, here["overrides"]))
        changed = changed_settings(
            there["configuration"], self.config, self.composed, given, ignored=searched | _OF_DATA
        )
        if None not in (there["data"], here["data"]) and there["data"] != here["data"]:
            changed.append(f"content of data.path = {self.config.data.path}")
        return changed

    def _queue_interrupted(self) -> None:
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params, user_attrs=trial.user_attrs | {_FOLDER: folder_name(trial)})

    def _queue_starts(self) -> None:
        """Queue the starts that are not queued yet; parameters that a start lacks have their defaults.

        Raises:
            ConfigError: A start that is queued already is another one here, or is absent.
        """
        numbers = range(len(self.search.starts))
        given = [self.defaults | self.search.start(self.model, self.quantizer, number) for number in numbers]
        here = json.loads(json.dumps(given))
        there = self._study.user_attrs.get(_STARTS, [])
        there = here[:there] if isinstance(there, int) else there  # files of 2026 have their number alone
        if here[: len(there)] != there:
            raise ConfigError(
                f"{self.file}: {self.name} was searched with other starts: {there} there, {here}"
                " here; starts may be added at the end. Give another output, or remove the folder."
            )
        for number in range(len(there), len(here)):
            self._study.enqueue_trial(given[number])
            self._study.set_user_attr(_STARTS, here[: number + 1])

    def ended(self) -> list[FrozenTrial]:
        """Return the trials that have an outcome: complete, pruned or failed."""
        trials = self._study.get_trials()
        waiting = {folder_name(trial) for trial in trials if trial.state == TrialState.WAITING}
        running = {folder_name(trial) for trial in trials if trial.state == TrialState.RUNNING}
        latest = {folder_name(trial): trial for trial in trials if trial.state in _ENDED}
        return [trial for folder, trial in latest.items() if folder not in waiting | running]

    def ask(self) -> Trial:
        """Return the next trial: an interrupted one, the defaults, a start, or new parameters.

        The sampler's seed depends on the model and the number of the trial. So an interruption does not change what is
        drawn, and in random trials all quantizers of a model have the same values of the parameters that they share,
        which are drawn first. Otherwise, with few trials, the luck of a good learning rate decides between quantizers.
        """
        with self._lock:
            number = len({folder_name(trial) for trial in self._study.get_trials()})
            seed = zlib.crc32(f"{self.search.seed}/{self.model}/{number}".encode())
            self._study.sampler = TPESampler(n_startup_trials=self.search.startup_trials, seed=seed)
            return self._study.ask({name: p.distribution() for name, p in self.parameters.items()})

    def folder(self, trial: Trial) -> Path:
        return Path(self.search.output) / self.model / self.quantizer / folder_name(trial)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Note the value of an epoch; returns whether the trial should be pruned."""
        with self._lock:
            trial.report(value, epoch)
            return bool(trial.should_prune())

    def tell(self, trial: Trial, state: TrialState, value: float | None, facts: dict[str, Any]) -> None:
        """Note the outcome of a trial, with facts about it."""
        with self._lock:
            for name, fact in facts.items():
                trial.set_user_attr(name, fact)
            self._study.tell(trial, value, state=state)

    def best(self) -> FrozenTrial | None:
        """Return the best complete trial, the earliest among equals; None if there is none."""
        sign = 1 if self.mode == "max" else -1
        complete = [trial for trial in self.ended() if trial.state == TrialState.COMPLETE]
        values = [(trial.value, trial) for trial in complete if trial.value is not None and math.isfinite(trial.value)]
        return max(values, key=lambda pair: sign * pair[0])[1] if values else None


def folder_name(trial: Trial | FrozenTrial) -> str:
    return trial.user_attrs.get(_FOLDER, f"trial_{trial.number:04d}")
