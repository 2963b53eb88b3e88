"""A search, from overrides to a study, the best overrides of every pair, a table of all trials and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event

import pyarrow as pa
from omegaconf import OmegaConf
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from cove_dist.errors import TrainingError
from cove_dist.experiments.cells import LOG
from cove_dist.experiments.process import exclusive
from cove_dist.experiments.progress import Estimate, JobProgress
from cove_dist.experiments.results import write_results
from cove_dist.experiments.runner import in_parallel, stopping
from cove_dist.experiments.search import SearchConfig, load_search, short
from cove_dist.experiments.studies import DEFAULTS, STUDY_FILE, PairStudy, folder_name
from cove_dist.experiments.text import MISSING, TextTable, number
from cove_dist.experiments.trials import run_trial
from data_pipeline.files import replaced_file
from data_pipeline.json_files import to_json

BEST_FILE, TRIALS_FILE, SUMMARY_FILE = "best.yaml", "trials.parquet", "summary.md"
_HOPELESS = 3  # failed trials of a pair, with none that went well, after which the fault is not the parameters'
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("quantizer", pa.string()),
        ("trial", pa.string()),
        ("state", pa.string()),  # complete | pruned | failed
        ("metric", pa.string()),
        ("value", pa.float64()),  # the best of the epochs; of a pruned trial the last
        ("epochs", pa.int64()),
        ("seconds", pa.float64()),
        ("reason", pa.string()),  # of a failed trial
        ("parameters", pa.string()),  # JSON
    ]
)


def run_search(overrides: Sequence[str], command: str) -> tuple[Path, TextTable]:
    """Run the trials that are left, pair after pair in turns, so that budgets are equal at any time.

    Args:
        overrides: Overrides of ``configs/tune.yaml``.
        command: Command to write with the results.

    Returns:
        The folder, and the table of the summary.

    Raises:
        ConfigError: A wrong setting, or a folder that holds a search of other settings.
        TrainingError: The trials of a pair fail, all of them.
    """
    search = load_search(overrides)
    folder = Path(search.output)
    folder.mkdir(parents=True, exist_ok=True)
    with stopping() as stop, exclusive(folder / ".search.lock", stop):
        storage = RDBStorage(f"sqlite:///{folder / STUDY_FILE}")
        studies = [PairStudy(search, model, quantizer, storage) for model, quantizer in search.all_pairs()]
        run_trials(search, studies, stop, command)
        return folder, write_search(search, studies, command)


def run_trials(search: SearchConfig, studies: Sequence[PairStudy], stop: Event, command: str) -> None:
    """Run the remaining trials of the selected pairs; write the results of all pairs after each."""
    selected = [study for study in studies if (study.model, study.quantizer) in search.pairs()]
    done = {study.name: len(study.ended()) for study in selected}
    turns = [(number, study) for number in range(search.trials) for study in selected if number >= done[study.name]]
    seconds = {s.model: [t.user_attrs["seconds"] for t in s.ended() if t.state == TrialState.COMPLETE] for s in studies}
    estimate = Estimate([study.model for _, study in turns], seconds, search.jobs)
    total = search.trials * len(selected)
    with JobProgress(search.title, total, total - len(turns), estimate) as progress:

        def job(number: int, study: PairStudy) -> None:
            name = f"{study.name}, trial {number + 1} of {search.trials}"
            progress.begin(name, study.model)
            trial = study.ask()
            progress.finish(name, study.model, run_trial(study, trial, stop))
            write_search(search, studies, command)
            _give_up_if_hopeless(study)

        in_parallel([partial(job, *turn) for turn in turns], search.jobs, stop, progress.refresh)
    for study in selected:
        _give_up_if_hopeless(study)


def _give_up_if_hopeless(study: PairStudy) -> None:
    ended, failed = study.ended(), failures(study)
    if len(failed) == len(ended) >= min(_HOPELESS, study.search.trials):
        folder = Path(study.search.output) / study.name / folder_name(failed[-1])
        raise TrainingError(
            f"{study.name}: all {len(failed)} trials failed, so it has no best settings; the last with:"
            f" {failed[-1].user_attrs['error']}. See {folder / LOG}"
        )


def failures(study: PairStudy) -> list[FrozenTrial]:
    """Return the trials whose training failed, diverged ones among them."""
    return [trial for trial in study.ended() if trial.state == TrialState.FAIL]


def write_search(search: SearchConfig, studies: Sequence[PairStudy], command: str) -> TextTable:
    """Write the best overrides, the trials and the summary, as far as they have come; returns the summary's table.

    Of the selected pairs, and of those selected earlier.
    """
    with PairStudy.writing:
        studies = [study for study in studies if (study.model, study.quantizer) in search.pairs() or study.ended()]
        folder = Path(search.output)
        ended = {study.name: study.ended() for study in studies}
        table = summary_table(search, studies)
        failed = [f"- {s.name}/{folder_name(t)}: {t.user_attrs['error']}" for s in studies for t in failures(s)]
        listed = "\n".join(["", "## Failed trials", "", *failed, ""]) if failed else ""
        text = f"# {search.title}\n\nMade by `{command}`.\n\n{table.markdown()}{listed}"
        with replaced_file(folder / SUMMARY_FILE) as file:
            file.write_text(text)
        best = best_of(studies)
        if best["pairs"]:  # a grid must not take a file without settings
            with replaced_file(folder / BEST_FILE) as file:
                OmegaConf.save(OmegaConf.create(best), file)
        rows = [_row(study, trial) for study in studies for trial in ended[study.name]]
        write_results(pa.Table.from_pylist(rows, SCHEMA), folder / TRIALS_FILE)
        return table


def best_of(studies: Sequence[PairStudy]) -> dict:
    """Return the content of the file that ``tuned`` of a grid reads: overrides by model and quantizer."""
    pairs: dict[str, dict[str, dict]] = {}
    for study in studies:
        best = study.best()
        if best is not None:
            found = {
                "overrides": best.user_attrs["overrides"],
                "metric": f"validation {study.metric}",
                "value": best.value,
                "trials": len(study.ended()),
            }
            pairs.setdefault(study.model, {})[study.quantizer] = found
    return {"pairs": pairs}


def summary_table(search: SearchConfig, studies: Sequence[PairStudy]) -> TextTable:
    """Build a table with a row per pair: its budget, the value of its settings without a search, and the best."""
    rows = []
    for study in studies:
        ended, best = study.ended(), study.best()
        states = [trial.state for trial in ended]
        counts = [f"{states.count(state)} {word}" for state, word in _STATES.items() if state in states]
        tried = [] if study.not_default else ended  # earlier versions marked trials that had some defaults
        first = [t for t in tried if DEFAULTS in t.user_attrs and t.state == TrialState.COMPLETE]
        before = number(first[0].value or 0.0) if first else "not tried" if study.not_default else MISSING
        found = (MISSING, "") if best is None else (number(best.value or 0.0), _words(best))
        budget = f"{len(ended)} of {max(len(ended), search.trials)}"  # an earlier call may have had more trials
        rows.append((study.model, study.quantizer, study.metric, budget, ", ".join(counts), before, *found))
    header = ("model", "quantizer", "metric", "trials", "ended", "defaults", "best", "with")
    note = (
        f"{_budgets(studies)} {_defaults_tried(studies)} In random trials the quantizers of a"
        " model have the same values of shared parameters. Pruned and failed trials count as trials, and are never the"
        " best. Values are of the validation split, at the best epoch; the test split is not read."
    )
    return TextTable(search.title, header, tuple(rows), (note,))


def _defaults_tried(studies: Sequence[PairStudy]) -> str:
    """Say whether the settings without a search are among the trials, and where not."""
    left_out = [f"{study.name} ({'; '.join(study.not_default)})" for study in studies if study.not_default]
    if not left_out:
        return "The settings without a search are among the trials."
    others = "are not among the trials" if len(left_out) == len(studies) else "are among the trials, but not those"
    return f"The settings without a search {others} of {', '.join(left_out)}."


def _budgets(studies: Sequence[PairStudy]) -> str:
    """Describe the numbers of trials of the pairs."""
    counts: dict[str, set[int]] = {}
    for study in studies:
        counts.setdefault(study.model, set()).add(len(study.ended()))
    if any(len(of_model) > 1 for of_model in counts.values()):
        return "The search is not finished: the pairs of a model do not have the same number of trials yet."
    trials = {model: min(of_model) for model, of_model in counts.items()}
    if len(set(trials.values())) == 1:
        return f"Every pair, base and quantized alike, has the same budget: {min(trials.values())} trials."
    listed = ", ".join(f"{model} {count}" for model, count in trials.items())
    return f"The pairs of a model, base and quantized alike, have the same budget; trials each: {listed}."


def _words(trial: FrozenTrial) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in trial.params.items())


def _row(study: PairStudy, trial: FrozenTrial) -> dict:
    return {
        "model": study.model,
        "quantizer": study.quantizer,
        "trial": folder_name(trial),
        "state": _STATES[trial.state],
        "metric": study.metric,
        "value": trial.value,
        "epochs": trial.user_attrs["epochs"],
        "seconds": trial.user_attrs["seconds"],
        "reason": trial.user_attrs.get("error"),
        "parameters": to_json(trial.params),
    }
