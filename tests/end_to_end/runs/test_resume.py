"""What a resumed run may change, what becomes of it, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist
from omegaconf import OmegaConf

from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.inference.run import Run
from cove_dist.quantization import triton_support
from cove_dist.runs import CONFIG_FILE, HISTORY_FILE, LOG_FILE, SUMMARY_FILE, read_json, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError, UserError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema
from tests.configurations import COVE, ROW_WISE, small_run

RESUME = "trainer.checkpoint.resume=auto"
RATES = ("trainer.optimizer.learning_rate=0.01", "embeddings.optimizer.learning_rate=0.01")


@pytest.fixture(scope="module")
def stopped(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ``max_steps`` stopped in the middle of its second epoch of 10 steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train(small_run(prepared, folder, *COVE, "trainer.max_steps=14"))
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "run")


def resumed(prepared: Path, run: Path, *overrides: str) -> list[str]:
    return small_run(prepared, run, *COVE, "trainer.max_steps=14", *overrides, RESUME)


@contextmanager
def refused(match: str, kind: type[UserError] = ConfigError) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a refusal, after which the same process may train again."""
    with pytest.raises(kind, match=match) as raised:
        yield raised
    assert not dist.is_initialized()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def losses(folder: Path) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in read_records(folder / LOG_FILE) if r["kind"] == "train"}


def history(folder: Path) -> list[tuple[int, str, object, object]]:
    records = [json.loads(line) for line in (folder / HISTORY_FILE).read_text().splitlines()]
    assert all(record["time"].endswith("+00:00") for record in records)
    return [(record["step"], record["key"], record["old"], record["new"]) for record in records]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.batch_size=120", "trainer.batch_size: 240 there, 120 here"),
        ("trainer.optimizer.name=sgd", "trainer.optimizer.name: adam there, sgd here"),
        ("embeddings.optimizer.name=adagrad", "embeddings.optimizer.name: adam there, adagrad here"),
        ("trainer.optimizer.weight_decay=0.1", r"trainer.optimizer.weight_decay: 0\.0 there, 0\.1 here"),
        ("quantizer.alpha=0.5", r"quantizer.alpha: 1\.0 there, 0\.5 here"),
        ("quantizer.omega_q=0.5", r"quantizer.omega_q: .* there, 0\.5 here"),
        ("quantizer=none", r"quantizer.user_levels: \(8, 3\) there, None here"),
        ("quantizer.item_levels=[9,4]", r"quantizer.item_levels: \(12, 4\) there, \(9, 4\) here"),
        ("quantizer.revive_every=5", "quantizer.revive_every: None there, 5 here"),
        ("seed=1", "seed: 0 there, 1 here"),
        ("model.hidden_units=[16,4]", r"model.hidden_units: \[16, 8\] there, \[16, 4\] here"),
        ("model.dropout=0", "model.dropout: .* there, 0 here"),
        ("embeddings.init_std=0.1", r"embeddings.init_std: 0\.01 there, 0\.1 here"),
        ("trainer.shuffle_buffer=100", "trainer.shuffle_buffer: 512 there, 100 here"),
        ("trainer.precision=bfloat16", "trainer.precision: float32 there, bfloat16 here"),
        ("trainer.early_stopping.metric=gauc", "trainer.early_stopping.metric: auc there, gauc here"),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_touched(
    prepared: Path, run: Path, override: str, message: str
) -> None:
    before = content(run)
    others = () if override == "quantizer=none" else COVE
    arguments = small_run(prepared, run, *others, "trainer.max_steps=20", *RATES, override, RESUME)
    with refused(match=rf"(?s)cannot be resumed at step 14 .*\n  {message}\n.*{CONFIG_FILE}"):
        train(arguments)
    assert content(run) == before


def test_every_refused_key_is_named_at_once_and_no_allowed_one(prepared: Path, run: Path) -> None:
    with refused("cannot be resumed") as raised:
        train(resumed(prepared, run, "seed=3", "quantizer.beta=0.5", "trainer.epochs=9", *RATES))
    named = [line.split(":")[0].strip() for line in str(raised.value).splitlines() if line.startswith("  ")]
    assert sorted(named) == ["quantizer.beta", "seed"]


def test_what_may_change_acts_is_logged_and_kept(prepared: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(resumed(prepared, run, "trainer.max_steps=16", *RATES, "trainer.log_every=2"))
    assert "Changed setting trainer.max_steps: 14 -> 16" in caplog.text
    assert "Changed setting embeddings.optimizer.learning_rate: 0.001 -> 0.01" in caplog.text
    train(resumed(prepared, run, "trainer.max_steps=18", *RATES, "trainer.log_every=2"))
    assert [change for change in history(run) if change[1] != "output"] == [  # the run was copied
        (14, "embeddings.optimizer.learning_rate", 0.001, 0.01),
        (14, "trainer.max_steps", 14, 16),
        (14, "trainer.optimizer.learning_rate", 0.001, 0.01),
        (14, "trainer.log_every", 1, 2),
        (16, "trainer.max_steps", 16, 18),
    ]
    assert OmegaConf.load(run / CONFIG_FILE).trainer.optimizer.learning_rate == 0.01
    assert read_json(run / SUMMARY_FILE)["step"] == 18


@pytest.mark.parametrize("tables", [("embeddings.optimizer.name=sgd",), ROW_WISE], ids=["replicated", "row-wise"])
def test_a_new_learning_rate_acts_from_the_resumed_step_on(
    prepared: Path, tmp_path: Path, tables: tuple[str, ...]
) -> None:
    """In one step of SGD or Adagrad every part changes in proportion to the rate."""
    given = ("trainer.optimizer.name=sgd", "model.dropout=0", "embeddings.init_std=0.3", *tables)
    base = small_run(prepared, tmp_path / "run", *given, "trainer.max_steps=5", "trainer.warmup_steps=10")
    train(base)
    changes = {}
    for rate in (0.002, 0.02):
        rates = (f"trainer.optimizer.learning_rate={rate}", f"embeddings.optimizer.learning_rate={rate}")
        config, _ = load_run_config([*base, "trainer.max_steps=9", *rates, RESUME])
        with process_group("cpu") as context:
            trainer = Trainer(config, Schema.load(prepared), context)
            trainer.resume(tmp_path / "run")
            state = trainer.train_state.model.state_dict()
            before = {name: local(value).clone() for name, value in state.items()}
            trainer.train_state.model.train()
            next(trainer.steps(iter(trainer.train_loader)))
            after = trainer.train_state.model.state_dict()
            changes[rate] = {
                name: (local(after[name]) - value).double().norm().item() for name, value in before.items()
            }
            lrs = [group["lr"] for group in trainer.train_state.optimizer.param_groups]
            assert lrs == pytest.approx([rate * 0.7] * 2), "after step 6 of 10 of the warm-up"
    moved = [name for name, change in changes[0.002].items() if change > 0]
    assert any("user_id" in name for name in moved)
    assert any("objective" in name for name in moved)
    for name in moved:
        assert changes[0.02][name] == pytest.approx(10 * changes[0.002][name], rel=0.02), name


def local(value):
    return value.local_shards()[0].tensor if hasattr(value, "local_shards") else value


def test_a_stop_in_mid_epoch_spends_no_patience_and_the_losses_are_those_of_a_whole_run(
    prepared: Path, tmp_path: Path
) -> None:
    """Even with a patience of one, stopped twice, and with reports that span the stops; dropout and shuffling on."""
    given = (*COVE, "trainer.epochs=3", "trainer.log_every=4", "trainer.early_stopping.patience=3")
    train(small_run(prepared, tmp_path / "whole", *given))
    for number, steps in enumerate((7, 14, 30)):
        parts = small_run(prepared, tmp_path / "parts", *given, f"trainer.max_steps={steps}")
        train([*parts, RESUME] if number else parts)
        if steps < 30:
            assert read_json(tmp_path / "parts" / SUMMARY_FILE)["validations_without_gain"] == 0
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert {step: parts[step] for step in whole} == whole
    assert max(whole) == 30
    assert sorted(parts.keys() - whole.keys()) == [7, 14], "the last step of each part"
    ends = [read_json(tmp_path / name / SUMMARY_FILE) for name in ("whole", "parts")]
    assert ends[0]["validations_without_gain"] == ends[1]["validations_without_gain"]


def test_a_stop_in_the_first_epoch_leaves_a_checkpoint_that_is_best(prepared: Path, tmp_path: Path) -> None:
    train(small_run(prepared, tmp_path / "run", "trainer.max_steps=3", "trainer.early_stopping.patience=1"))
    summary = read_json(tmp_path / "run" / SUMMARY_FILE)
    assert (summary["step"], summary["epoch"], summary["best_step"], summary["validations_without_gain"]) == (
        3,
        0,
        3,
        0,
    )
    assert 0 < summary["best"] < 1


def test_a_finished_run_goes_on_with_more_epochs_or_patience(prepared: Path, tmp_path: Path) -> None:
    train(small_run(prepared, tmp_path / "run", "trainer.epochs=1"))
    train(small_run(prepared, tmp_path / "run", "trainer.epochs=2", RESUME))
    assert max(losses(tmp_path / "run")) == 20
    assert history(tmp_path / "run") == [(10, "trainer.epochs", 1, 2)]


def test_moved_data_with_the_same_content_is_allowed_and_other_content_is_not(
    prepared: Path, run: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(prepared, tmp_path / "moved")
    train(resumed(moved, run, "trainer.max_steps=15"))
    assert (14, "data.path", str(prepared), str(moved)) in history(run)
    before = content(run)
    shutil.copytree(prepared / "validation", moved / "test", dirs_exist_ok=True)
    with refused(kind=DataError, match=rf"{moved}/test/part-00000\.parquet: .* when it was prepared"):
        train(resumed(moved, run, "trainer.max_steps=16"))
    shutil.rmtree(moved)
    synthetic = Synthetic(users=60, items=80, rows=3001, user_tree=(6, 2), item_tree=(8, 2))
    prepare(synthetic, moved, name="synthetic", seed=1)
    content_is = rf"content of data\.path = {moved} is not that of the run: \w+/[\w.-]+ differs, and \d+ more\. "
    with refused(match=content_is) as raised:
        train(resumed(moved, run, "trainer.max_steps=16"))
    assert "\n" not in str(raised.value)
    other = shutil.copytree(moved, tmp_path / "other")
    with refused(match=rf"data.path: {moved} there, {other} here"):
        train(resumed(other, run, "trainer.max_steps=16"))
    assert content(run) == before


def test_a_moved_run_folder_goes_on(prepared: Path, run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "elsewhere")
    train(resumed(prepared, moved, "trainer.max_steps=15"))
    assert read_json(moved / SUMMARY_FILE)["step"] == 15


def test_checkpoints_without_their_configuration_are_refused(prepared: Path, run: Path) -> None:
    (run / CONFIG_FILE).unlink()
    before = content(run)
    with refused(match=r"cannot be resumed, because its configuration cannot be read: .*config\.yaml"):
        train(resumed(prepared, run))
    assert content(run) == before


def test_a_run_with_the_search_of_another_device_is_served_and_its_training_refused(
    prepared: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run that was trained on a GPU; tests have Triton's interpreter."""
    monkeypatch.setattr(triton_support, "_device_type", lambda: "cuda")
    here = Run(run, device="cpu").codes("item")
    saved = OmegaConf.load(run / CONFIG_FILE)
    saved.quantizer.search = "triton"
    OmegaConf.save(saved, run / CONFIG_FILE)
    assert Run(run, device="cpu").codes("item").equals(here)
    assert evaluate_run([f"run={run}", "device=cpu"]).metrics
    before = content(run)
    with refused("search = triton: needs cuda and .*; allowed here, on cpu: auto, chunked, compiled, faiss"):
        train(resumed(prepared, run, "trainer.max_steps=16", "quantizer.search=triton"))
    assert content(run) == before
    train(resumed(prepared, run, "trainer.max_steps=16"))
    assert (14, "quantizer.search", "triton", "auto") in history(run)


def test_a_run_killed_before_its_first_checkpoint_begins_again(prepared: Path, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / SUMMARY_FILE).unlink()
    train(resumed(prepared, run, "trainer.max_steps=2", "seed=5"))
    assert sorted(losses(run)) == [1, 2]
    assert OmegaConf.load(run / CONFIG_FILE).seed == 5
    assert not (run / HISTORY_FILE).exists()


@pytest.mark.parametrize("resume", ["no", "auto"])
def test_a_trained_run_without_checkpoints_is_not_trained_over(prepared: Path, run: Path, resume: str) -> None:
    shutil.rmtree(run / "checkpoints")
    before = content(run)
    with refused(match="holds a trained run without checkpoints"):
        train(small_run(prepared, run, *COVE, f"trainer.checkpoint.resume={resume}"))
    assert content(run) == before
