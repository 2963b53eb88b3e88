"""Search files, and studies: what is asked, what counts, what an interruption leaves."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from cove_dist.config_folders import OWN_FOLDERS
from cove_dist.errors import ConfigError
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import load_grid
from cove_dist.experiments.search import SearchConfig, load_search, sampled
from cove_dist.experiments.studies import DEFAULTS, PairStudy, folder_name
from cove_dist.experiments.trials import Follower
from cove_dist.runs import read_records
from tests.component.experiments.grids import small_search

FACTS = {"overrides": ["a=1"], "epochs": 1, "seconds": 2.0}


def study_of(search: SearchConfig, quantizer: str = "cove", storage: BaseStorage | None = None) -> PairStudy:
    return PairStudy(search, "deepfm", quantizer, storage or InMemoryStorage())


def test_starts_follow_the_defaults_and_may_be_added(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    study = study_of(small_search(tmp_path, "starts=[{rate:0.002,alpha:0.25}]"), storage=storage)
    trial = study.ask()
    study.tell(trial, TrialState.COMPLETE, 0.5, {})
    study = study_of(small_search(tmp_path, "starts=[{rate:0.002,alpha:0.25},{alpha:0.5}]"), storage=storage)
    assert study.defaults.items() <= trial.params.items()
    asked = [study.ask().params for _ in range(2)]
    assert [params["levels"] for params in asked] == 2 * [study.defaults["levels"]], "what a start leaves open"
    assert [(params["rate"], params["alpha"]) for params in asked] == [(0.002, 0.25), (trial.params["rate"], 0.5)]
    base = study_of(small_search(tmp_path, "starts=[{rate:0.002,alpha:0.25}]"), "none")
    assert [base.ask().params["rate"] for _ in range(2)][1] == 0.002


def test_starts_that_are_queued_do_not_change(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    study_of(small_search(tmp_path, "starts=[{rate:0.002},{rate:0.003}]"), storage=storage)
    for starts in ("{rate:0.004},{rate:0.003}", "{rate:0.002}"):
        with pytest.raises(ConfigError, match=r"study\.db: deepfm/cove was searched with other starts: .*may be added"):
            study_of(small_search(tmp_path, f"starts=[{starts}]"), storage=storage)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("rte:0.002", r"starts\.0\.rte: no such parameter; the space has .*rate"),
        ("alpha:7.0", r"starts\.0\.alpha = 7\.0: outside the space of deepfm/cove"),
    ],
)
def test_a_wrong_start_is_refused(tmp_path: Path, start: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_search(tmp_path, f"starts=[{{{start}}}]")


def test_the_base_has_the_common_space_and_a_quantizer_adds_its_own(tmp_path: Path) -> None:
    search = small_search(tmp_path)
    assert list(search.parameters("deepfm", "none")) == ["rate", "units"]
    assert list(search.parameters("deepfm", "cove")) == ["rate", "units", "levels", "alpha"]


def test_parameters_become_overrides(tmp_path: Path) -> None:
    parameters = small_search(tmp_path).parameters("deepfm", "cove")
    values = {"rate": 0.00123456, "units": "[8]", "levels": "[6,2]", "alpha": 1.0}
    assert sampled(parameters, values) == (
        "trainer.optimizer.learning_rate=0.001235", "embeddings.optimizer.learning_rate=0.001235",
        "model.hidden_units=[8]", "quantizer.user_levels=[6,2]", "quantizer.item_levels=[6,2]", "quantizer.alpha=1",
    )  # fmt: skip


def test_trial_0_has_the_settings_without_a_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is called so only if all lie in the space: the configured alpha of 1 does not, nor do two levels of one."""
    study = study_of(small_search(tmp_path), "none")
    first, second = study.ask(), study.ask()
    assert first.params == study.defaults == {"rate": 0.001, "units": "[16,8]"}
    assert (DEFAULTS in first.user_attrs, DEFAULTS in second.user_attrs) == (True, False)
    assert not caplog.records
    study = study_of(small_search(tmp_path))
    assert study.defaults == {"rate": 0.001, "units": "[16,8]", "levels": "[8,3]"}
    first = study.ask()
    assert first.params.items() >= study.defaults.items()
    assert DEFAULTS not in first.user_attrs
    [record] = caplog.records
    assert record.getMessage() == (
        "deepfm/cove: the keys of levels have different defaults (quantizer.user_levels = [8, 3], quantizer.item_levels"
        " = [12, 4]); default of alpha, 1.0, is outside its space: the configuration without a search is not tried"
    )


def test_random_trials_of_all_quantizers_share_their_common_parameters(tmp_path: Path) -> None:
    search = small_search(tmp_path)
    base, cove = (study_of(search, quantizer) for quantizer in ("none", "cove"))
    asked = [(base.ask().params, cove.ask().params) for _ in range(5)]
    common = list(base.parameters)
    assert [values for values, _ in asked] == [{name: values[name] for name in common} for _, values in asked]
    assert len({values["rate"] for values, _ in asked}) == 5, "the defaults, and random ones"


def test_an_interrupted_trial_is_asked_for_again_and_counts_once(tmp_path: Path) -> None:
    """Nor does the interruption change what is drawn afterwards."""

    def through(folder: Path, *, interrupted: bool) -> list[tuple[str, dict[str, Any]]]:
        search, storage, seen = small_search(folder), InMemoryStorage(), []
        study = study_of(search, storage=storage)
        for number in range(4):
            trial = study.ask()
            if interrupted and number == 2:
                study = study_of(search, storage=storage)
                assert len(study.ended()) == 2
                again = study.ask()
                assert (folder_name(again), again.params) == (folder_name(trial), trial.params)
                trial = again
            study.tell(trial, TrialState.COMPLETE, trial.params["rate"], FACTS)
            seen.append((folder_name(trial) if number < 3 else "", trial.params))
        assert len(study.ended()) == 4
        return seen

    assert through(tmp_path / "a", interrupted=True) == through(tmp_path / "b", interrupted=False)


def test_the_best_trial_is_complete_and_by_the_direction_of_the_metric(tmp_path: Path) -> None:
    for metric, best in (("auc", 0.8), ("logloss", 0.6)):
        stopping = f'["trainer.early_stopping.metric={metric}"]'
        study = study_of(small_search(tmp_path / metric, f"common={stopping}"), "none")
        assert study.best() is None
        for value in (0.7, 0.8, 0.6):
            study.tell(study.ask(), TrialState.COMPLETE, value, FACTS)
        study.tell(study.ask(), TrialState.FAIL, None, FACTS | {"error": "x"})
        pruned = study.ask()
        study.report(pruned, 1, 0.9 if metric == "auc" else 0.1)
        study.tell(pruned, TrialState.PRUNED, None, FACTS)
        found = study.best()
        assert found is not None
        assert found.value == best


def test_a_trial_under_the_median_is_pruned_after_so_many_epochs(tmp_path: Path) -> None:
    study = study_of(small_search(tmp_path, "startup_trials=2", "prune_after=2"), "none")
    for value in (0.7, 0.8):
        trial = study.ask()
        assert not any([study.report(trial, epoch, value) for epoch in (1, 2)])
        study.tell(trial, TrialState.COMPLETE, value, FACTS)
    log = tmp_path / "log.jsonl"
    follower = Follower(log, study, study.ask())
    records = [{"kind": "validation", "epoch": e, "step": e, "auc": 0.72} for e in (1, 2)]
    assert not follower.look(), "there is no log yet"
    log.write_text("".join(json.dumps(record) + "\n" for record in records[:1]) + '{"kind": "valid')
    assert not follower.look(), "epoch 2 is not over"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert follower.look()
    assert follower.values == {1: 0.72, 2: 0.72}


def test_a_value_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    study = study_of(small_search(tmp_path), "none")
    log = tmp_path / "log.jsonl"
    values = (math.nan, 0.6, math.nan)
    records = [{"kind": "validation", "epoch": e, "step": e, "auc": value} for e, value in enumerate(values, 1)]
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    follower = Follower(log, study, study.ask())
    follower.look()
    assert follower.best() == 0.6
    assert len(read_records(log)) == 3


def test_a_search_of_other_settings_is_refused(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    study_of(small_search(tmp_path), storage=storage)
    with pytest.raises(ConfigError, match=r"study.db: deepfm/cove was searched with other settings: overrides: "):
        study_of(small_search(tmp_path, "seed=3"), storage=storage)
    study_of(small_search(tmp_path, "trials=50", "jobs=2"), storage=storage)


def test_a_search_does_not_go_on_after_a_change_in_a_file_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWN_FOLDERS, str(tmp_path / "groups"))
    mine = tmp_path / "groups" / "model" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("_target_: cove_dist.models.ctr.deepfm.DeepFM\nhidden_units: [16, 8]\n")
    storage, own = InMemoryStorage(), 'models.deepfm=["model=mine"]'
    study_of(small_search(tmp_path, own), storage=storage)
    mine.write_text(mine.read_text().replace("[16, 8]", "[8]") + "dropout: 0.1\n")
    study_of(small_search(tmp_path, own), storage=storage)  # a key of the space; and what is the constructor's default
    mine.write_text(mine.read_text().replace("0.1", "0.3"))
    with pytest.raises(ConfigError, match=r"with other settings: model\.dropout: 0\.1 there, 0\.3 here\. Give"):
        study_of(small_search(tmp_path, own), storage=storage)


def test_a_search_does_not_go_on_with_other_data(tmp_path: Path, prepared: Path) -> None:
    storage, data = InMemoryStorage(), tmp_path / "data"
    shutil.copytree(prepared, data)
    own = f'common=["data=synthetic","data.path={data}"]'
    study_of(small_search(tmp_path, own), storage=storage)
    study_of(small_search(tmp_path, own), storage=storage)
    schema = data / "schema.json"
    schema.write_text(schema.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"searched with other settings: content of data\.path = .*data\. Give"):
        study_of(small_search(tmp_path, own), storage=storage)


def test_a_search_of_an_earlier_version_warns_once_and_is_checked_from_then_on(
    tmp_path: Path, prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage, data = InMemoryStorage(), tmp_path / "data"
    shutil.copytree(prepared, data)
    own = f'common=["data=synthetic","data.path={data}"]'
    study = study_of(small_search(tmp_path, own), "none", storage)
    [stored] = storage.get_all_studies()
    definition = {key: study._definition()[key] for key in ("overrides", "space", "metric")}
    storage.set_study_user_attr(stored._study_id, "definition", definition)
    study_of(small_search(tmp_path, own), "none", storage)
    study_of(small_search(tmp_path, own), "none", storage)
    assert caplog.text.count("deepfm/none was begun by an earlier version, which did not record its configuration") == 1
    assert storage.get_all_studies()[0].user_attrs["definition"] == study._definition()
    schema = data / "schema.json"
    schema.write_text(schema.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"searched with other settings: content of data\.path = .*data\. Give"):
        study_of(small_search(tmp_path, own), "none", storage)


def test_data_that_are_prepared_after_the_first_call_are_checked_too(tmp_path: Path, prepared: Path) -> None:
    storage, data = InMemoryStorage(), tmp_path / "data"
    own = f'common=["data=synthetic","data.path={data}"]'
    study_of(small_search(tmp_path, own), storage=storage)
    shutil.copytree(prepared, data)
    study_of(small_search(tmp_path, own), storage=storage)
    schema = data / "schema.json"
    schema.write_text(schema.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"content of data\.path = "):
        study_of(small_search(tmp_path, own), storage=storage)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.all.rate.low=1", r"space\.all\.rate.*low = 1, high = 0\.1: low must be less"),
        ("space.all.rate.low=0", r"low = 0, high = 0\.1: low must be less, and above 0 with log"),
        ("space.all.rate.type=flaot", r"space\.all\.rate.*'float'"),
        ("space.all.units.choices=[]", r"choices = \[\]: needs one or more"),
        ("+space.all.rate.lowest=1", r"space\.all\.rate.*lowest.*unknown key"),
        ("trials=0", "trials = 0: input should be greater than 0"),
    ],
)
def test_a_wrong_search_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_search(tmp_path, override)


def test_a_search_needs_a_space_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="space: has no parameters for deepfm/none"):
        small_search(tmp_path, "~space.all.rate", "~space.all.units")
    with pytest.raises(ConfigError, match="title, output, models, quantizers: not set; give a search file"):
        load_search([])


def test_dropping_a_model_or_a_quantizer_is_enough() -> None:
    """The shipped search has a space of lightgcn, a start with its layers, and one with alpha of the quantizer."""
    for dropped in (["~models.lightgcn", "~models.neumf"], ["~quantizers.cove"], ["~space.models", "~models.neumf"]):
        search = load_search(file_arguments("search", ["tune_toys", *dropped]))
        assert not {f"~models.{name}" for name in search.models} & set(dropped)
        assert search.start("bprmf", "none", 4).keys() == {"rate", "table_decay"}
    grid = load_grid(file_arguments("grid", ["table5_aotm", "~quantizers.levels_20", "~models.bert4rec"]))
    assert grid.compare == (("levels_500_10", "levels_500"),)
    for arguments, message in {
        ("~models.ligthgcn",): "~models.ligthgcn: not there; did you mean lightgcn",
        ("+space.models.ligthgcn.x={keys:[a],type:int,low:1,high:2}",): "space.models.ligthgcn: not in models; did you",
        ("~models.lightgcn", "starts=[{layesr:2}]"): "starts.0.layesr: no such parameter",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_search(file_arguments("search", ["tune_toys", *arguments]))
