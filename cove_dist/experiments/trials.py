"""One trial: a training whose validation metric is followed in its log, epoch by epoch, and ended when it is pruned.

Nothing here evaluates: a trial's value is the best that its own validation found. The test split is not read.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from threading import Event

from optuna.trial import Trial, TrialState

from cove_dist.experiments.cells import LOG
from cove_dist.experiments.common import merged
from cove_dist.experiments.process import exclusive, reason, run_program, size
from cove_dist.experiments.search import sampled
from cove_dist.experiments.studies import PairStudy
from cove_dist.experiments.text import number
from cove_dist.runs import CHECKPOINTS, LOG_FILE, SUMMARY_FILE, read_records


class Follower:
    """Reads the validation metric from a run's log as training writes it.

    Args:
        log: ``log.jsonl``, which need not be there yet.
        study, trial: Study and trial to report to.
    """

    def __init__(self, log: Path, study: PairStudy, trial: Trial) -> None:
        self._log, self._study, self._trial = log, study, trial
        self.values: dict[int, float] = {}  # by epoch
        self._of_steps: dict[int, float] = {}  # by step: those of validations within epochs too
        self.pruned = False

    def look(self) -> bool:
        """Report epochs that are new; returns whether the trial should end."""
        for record in read_records(self._log):
            if record["kind"] != "validation":
                continue
            epoch, value = record["epoch"], record[self._study.metric]
            self._of_steps[record["step"]] = value
            if epoch not in self.values:
                self.values[epoch] = value
                if math.isfinite(value) and not self.pruned:  # what is not defined is no reason to end the trial
                    self.pruned = self._study.report(self._trial, epoch, value)
        return self.pruned

    def best(self) -> float | None:
        """Return the best value of the validations so far; None if it was defined in none of them."""
        values = [value for value in self._of_steps.values() if math.isfinite(value)]
        return (max if self._study.mode == "max" else min)(values, default=None)


def run_trial(study: PairStudy, trial: Trial, stop: Event) -> str:
    """Train with the trial's parameters, tell the study, and return what became of it, in words.

    Raises:
        Interrupted: ``stop`` was set; the study is not told, and the trial can be resumed.
    """
    folder = study.folder(trial)
    folder.mkdir(parents=True, exist_ok=True)
    follower = Follower(folder / LOG_FILE, study, trial)
    own = (f"output={folder}", "trainer.checkpoint.resume=auto", "trainer.checkpoint.keep=1")
    search = study.search
    found = sampled(study.parameters, trial.params)
    arguments = merged(search.fixed(study.model, study.quantizer), found, own)
    started = time.monotonic()
    with exclusive(folder.parent / f".{folder.name}.lock", stop) as lock:
        log = folder / LOG
        start = size(log)
        code = run_program("train", arguments, log, search, lock=lock, stop=stop, enough=follower.look)
    if code == 0 and not (folder / SUMMARY_FILE).is_file():
        code = 1  # SIGTERM ended the training before its end
    if code == 0:
        follower.look()
    facts = {"overrides": list(found), "epochs": len(follower.values), "seconds": time.monotonic() - started}
    cause = reason(log, start) if code else f"{study.metric} was defined in no epoch"
    words = _tell(study, trial, follower, code, facts, cause)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # they served to resume
    return words


def _tell(study: PairStudy, trial: Trial, follower: Follower, code: int, facts: dict, cause: str) -> str:
    """Tell the study a trial's outcome: complete only if training ended well, without divergence."""
    best = follower.best()
    if code == 0 and best is not None:
        study.tell(trial, TrialState.COMPLETE, best, facts)
        return f"{study.metric} {number(best)}"
    if follower.pruned:
        study.tell(trial, TrialState.PRUNED, None, facts)
        reached = "no number" if best is None else number(best)
        return f"pruned after epoch {max(follower.values)}: {study.metric} {reached}"
    if code == 0 and not follower.values:
        cause = "a search needs a validation split, which the data do not have; prepare them with data.validation"
    study.tell(trial, TrialState.FAIL, None, facts | {"error": cause})
    return f"failed: {cause}"
