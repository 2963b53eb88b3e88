"""Every setting of a run acts, or is refused: changed, it changes what the run logs, writes, warns of or builds."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from cove_dist.config.composition import config_folder
from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.overrides import flat
from cove_dist.errors import UserError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks import loaders
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from cove_dist.training import program
from cove_dist.training.trainer import Trainer
from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from tests import interactions


class Change(NamedTuple):
    """Another value of a setting.

    Attributes:
        value: which differs from the default and from that of the small runs.
        given: overrides under which it acts, of the run that is compared with as well.
        also: overrides of the changed run alone.
    """

    value: str
    given: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


STILL = (  # no epoch is better than the first
    *("trainer.epochs=3", "trainer.max_steps=null", "trainer.early_stopping.patience=9"),
    *("trainer.optimizer.learning_rate=1e-12", "embeddings.optimizer.learning_rate=1e-12"),
)
KMEANS = ("quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")
SAMPLED = ("sequential.softmax=sampled", "sequential.sampled=20")
SECOND_EPOCH = ("trainer.epochs=2", "trainer.max_steps=null")
BY_QUANTIZER = (*SECOND_EPOCH, "negatives.category_share=0.5", "negatives.category_codes=quantizer")
CHANGES = {
    "data.name": Change("other"),
    "data.path": Change("nowhere"),
    "embeddings.dim": Change("16"),
    "embeddings.init_std": Change("0.3"),
    "embeddings.optimizer.name": Change("sgd"),
    "embeddings.optimizer.learning_rate": Change("0.1"),
    "embeddings.optimizer.weight_decay": Change("0.5"),
    "embeddings.optimizer.weight_decay_rows": Change("looked_up", ("embeddings.optimizer.weight_decay=0.5",)),
    "embeddings.optimizer.weight_decay_frequency_power": Change("0.6", ("embeddings.optimizer.weight_decay=0.5",)),
    "embeddings.sharding.default": Change("data_parallel", ("embeddings.optimizer.name=rowwise_adagrad",)),
    "evaluation.ndcg_at": Change("[3,10]"),
    "evaluation.hit_rate_at": Change("[2]"),
    "evaluation.rank_validation": Change("[sampled,full]"),
    "evaluation.group_by": Change("request_id"),
    "evaluation.exclude_seen": Change("true"),
    "evaluation.metrics": Change("{}", also=("metric=brier",)),
    "loss": Change("focal"),
    "seed": Change("7"),
    "output": Change("elsewhere"),
    "quantizer.user_levels": Change("[5]"),
    "quantizer.item_levels": Change("[7,2]"),
    "quantizer.cascade": Change("residual"),
    "quantizer.alpha": Change("0.5"),
    "quantizer.beta": Change("0.9"),
    "quantizer.omega_q": Change("0.1"),
    "quantizer.omega_c": Change("0.5"),
    "quantizer.loss_reduction": Change("sum"),
    "quantizer.codebook_gradient": Change("quantization"),
    "quantizer.learning": Change("ema"),
    "quantizer.ema_decay": Change("0.5", ("quantizer.learning=ema",)),
    "quantizer.start": Change("kmeans", also=("quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")),
    "quantizer.kmeans_step": Change("2", KMEANS),
    "quantizer.kmeans_batches": Change("1", KMEANS),
    "quantizer.init_std": Change("0.5"),
    "quantizer.revive_every": Change("1"),
    "quantizer.warn_perplexity": Change("1.0"),
    "quantizer.search": Change("chunked"),
    "trainer.device": Change("cuda"),
    "trainer.epochs": Change("2", ("trainer.max_steps=null",)),
    "trainer.max_steps": Change("2"),
    "trainer.batch_size": Change("40"),
    "trainer.evaluation_batch_size": Change("60"),
    "trainer.accumulate_steps": Change("2"),
    "trainer.optimizer.name": Change("sgd"),
    "trainer.optimizer.learning_rate": Change("0.1"),
    "trainer.optimizer.weight_decay": Change("0.5"),
    "trainer.warmup_steps": Change("9"),
    "trainer.schedule.name": Change("linear"),
    "trainer.schedule.epochs": Change("9", ("trainer.schedule.name=linear",)),
    "trainer.schedule.steps": Change("90", ("trainer.schedule.name=cosine",)),
    "trainer.gradient_clip_norm": Change("1e-6", ("trainer.optimizer.name=sgd", "embeddings.optimizer.name=sgd")),
    "trainer.precision": Change("bfloat16"),
    "trainer.workers": Change("1"),
    "trainer.shuffle_buffer": Change("50"),
    "trainer.log_every": Change("2"),
    "trainer.early_stopping.metric": Change("ndcg@5", STILL),
    "trainer.early_stopping.mode": Change("min"),
    "trainer.early_stopping.patience": Change("1", STILL),
    "trainer.checkpoint.every_steps": Change("1"),
    "trainer.checkpoint.every_minutes": Change("1e-9"),
    "trainer.checkpoint.keep": Change("1", STILL),
    "trainer.debug": Change("true"),
    "trainer.loggers.tensorboard._target_": Change("cove_dist.losses.pairs.BPR"),
    "trainer.profile.after": Change("1"),
    "trainer.profile.steps": Change("2", ("trainer.profile.after=1",)),
    "negatives.count": Change("3"),
    "negatives.source": Change("popularity"),
    "negatives.hardest_of": Change("3"),
    "negatives.hardest_share": Change("0.5", ("negatives.hardest_of=3",)),
    "negatives.category_share": Change("0.5", SECOND_EPOCH),
    "negatives.category_codes": Change("random", (*SECOND_EPOCH, "negatives.category_share=0.5")),
    "negatives.category_count": Change("3", (*SECOND_EPOCH, "negatives.category_share=0.5")),
    "negatives.category_level": Change("0", (*BY_QUANTIZER, "quantizer.item_levels=[7,2]")),
    "interactions.neighbor_pull": Change("0.5"),
    "negatives.power": Change("0.1", ("negatives.source=popularity",)),
    "sequential.softmax": Change("sampled", also=("sequential.sampled=20",)),
    "sequential.sampled": Change("10", SAMPLED),
    "sequential.sampled_power": Change("0.0", SAMPLED),
    "sequential.fuse_output": Change("false"),
    "sequential.item_bias": Change("false"),
    "sequential.mask_share": Change("0.9"),
    "sequential.mask_last": Change("1.0"),
    "sequential.curriculum_steps": Change("8", ("model=fans", "model.num_layers=1", "model.num_heads=2")),
    "sequential.categories": Change("kind"),
    "sequential.two_stage": Change("true"),
}
DECAYED = ("embeddings.optimizer.weight_decay=0.5", "trainer.batch_size=2")
CATEGORIES = (*SECOND_EPOCH, "sequential.softmax=sampled", "sequential.sampled=60", "negatives.category_share=0.5")
BY_LEVELS = (*CATEGORIES, "negatives.category_codes=quantizer", "quantizer=cove_items")
OF_SEQUENTIAL = {  # whose softmax over all items looks all rows up; what has negatives is a sample
    "negatives.category_share": Change("0.2", CATEGORIES),
    "negatives.category_codes": Change("random", CATEGORIES),
    "negatives.category_count": Change("3", CATEGORIES),
    "negatives.category_level": Change("0", (*BY_LEVELS, "quantizer.item_levels=[7,2]")),
    "embeddings.optimizer.weight_decay_rows": Change("looked_up", (*DECAYED, *SAMPLED)),
}
OF_BASE = {  # which quantizes nothing by itself
    "negatives.category_level": Change("0", (*BY_QUANTIZER, "quantizer=cove_items")),
}
MODELS = {
    "hidden_units": "[6]", "hidden_units_2": "[10]", "bottom_units": "[6]", "gate_units": "[6]", "dropout": "0.77",
    "cross_layers": "1", "bilinear": "all", "reduction_ratio": "1", "context": "[1]", "context_2": "[1]",
    "num_heads": "4", "num_layers": "2", "attention_dropout": "0.5", "regularization": "0.7", "margin": "9.0",
    "edge_weight": "5.0", "init_std": "0.5", "layers": "1", "window": "2", "horizontal_filters": "3",
    "vertical_filters": "2", "hidden_dim": "12",
}  # fmt: skip
ELSEWHERE = {
    "evaluation.rank_test": "acts where a run is evaluated: below",
    "trainer.compile": "takes a minute: tests/unit/training/test_compiled_heads.py",
    "trainer.on_logger_error": "needs a logger that fails: tests/unit/training/test_loggers.py",
    "trainer.on_nan": "needs a loss that is not finite: tests/unit/training/test_skipped_steps.py",
    "trainer.on_disk_full": "needs a full disk: tests/unit/training/test_full_disk.py",
    "trainer.timeout_seconds": "needs several ranks: tests/distributed/test_liveness.py",
    "trainer.check_replicas_every": "needs several ranks: tests/distributed/test_training.py",
    "trainer.checkpoint.resume": "needs a run to go on from: tests/unit/training/test_resume.py",
}
SMALL = (
    *("embeddings.dim=8", "trainer.device=cpu", "trainer.batch_size=60", "trainer.evaluation_batch_size=28"),
    *("trainer.epochs=1", "trainer.max_steps=5", "trainer.log_every=1", "trainer.warmup_steps=0"),
)
RUNS = {
    "ctr": ("model=deepfm", "model.hidden_units=[16,8]"),
    "cf": ("data=toys", "model=neumf", "model.hidden_units=[16,8]"),
    "sequential": ("data=aotm", "model=bert4rec", "model.num_layers=1", "model.num_heads=2"),
}
FEWER = {"hidden_units": "[20,10]", "num_layers": "1", "num_heads": "2"}  # of the models that have them
COVE = {
    "ctr": ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]"),
    "cf": ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]"),
    "sequential": ("quantizer=cove_items", "quantizer.item_levels=[12,4]"),
}
CTR_COLUMNS = {"user": "user", "item": "item", "label": "label", "categorical": ("kind",), "dense": ("age",)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, prepared_lists: Path) -> dict[str, Path]:
    """Prepared data of every task; of CTR with three columns of ids and one of numbers."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(3)
    columns = {name: torch.randint(size, (600,), generator=generator) for name, size in
               (("user", 30), ("item", 40), ("kind", 5), ("age", 70), ("label", 2))}  # fmt: skip
    pq.write_table(pa.table({name: values.numpy() for name, values in columns.items()}), folder / "raw.parquet")
    prepare(Custom(source=str(folder / "raw.parquet"), **CTR_COLUMNS), folder / "ctr", name="ctr")
    return {"ctr": folder / "ctr", "cf": interactions.prepare_small(folder), "sequential": prepared_lists}


class Traces:
    """What runs leave behind, by their overrides.

    Args:
        folder: of the runs; each is removed when it is read.
        monkeypatch: to look at what a run builds.
        caplog: with its warnings.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self._folder, self._caplog = folder, caplog
        self._built: list[Any] = []
        self._known: dict[tuple[str, ...], Any] = {}
        build_loader, built = loaders.build_loader, self._built

        def record_loader(path: Any, schema: Any, split: str, batch_size: int, *ranks: int, **settings: Any) -> Any:
            built.append((split, batch_size, settings.get("workers", 0)))
            return build_loader(path, schema, split, batch_size, *ranks, **settings)

        class RecordedTrainer(Trainer):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                quantizers = self.trainable.model.module.objective.quantizers
                built.append([quantizer.search for quantizer in quantizers.values()])
                built.append(str(self.trainable.model.plan))

        monkeypatch.setattr(loaders, "build_loader", record_loader)
        monkeypatch.setattr(program, "Trainer", RecordedTrainer)

    def of(self, *overrides: str) -> Any:
        """Records, files, warnings and what was built; or the message of the refusal, in a tuple of its own."""
        if overrides not in self._known:
            self._known[overrides] = self.again(*overrides)
        return self._known[overrides]

    def again(self, *overrides: str) -> Any:
        """The same, of another run."""
        self._built.clear()
        self._caplog.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        try:
            program.train(overrides)
        except (UserError, DataError) as error:
            return ("refused", str(error))
        finally:
            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
            if dist.is_initialized():  # a refused run leaves its process group
                dist.destroy_process_group()
        files = sorted(path for path in self._folder.rglob("*") if "tfevents" not in path.name)
        logs = [read_records(path) for path in files if path.name == LOG_FILE]
        records = [[{k: v for k, v in r.items() if not _is_of_time(k)} for r in log] for log in logs]
        metas = [json.loads(path.read_text()) for path in files if path.name == "meta.json"]
        progress = [(meta["step"], meta["progress"]) for meta in metas]
        warnings = [r.getMessage() for r in self._caplog.records if r.levelno >= logging.WARNING and "cove" in r.name]
        names = [str(path.relative_to(self._folder)) for path in files]
        return (repr(records), names, repr(progress), warnings, list(self._built))


def _is_of_time(key: str) -> bool:
    return any(word in key for word in ("time", "second", "_mb"))


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Traces]:
    monkeypatch.chdir(tmp_path)
    yield Traces(tmp_path / "runs", monkeypatch, caplog)


def silent(traces: Traces, base: tuple[str, ...], changes: Mapping[str, Change]) -> list[str]:
    """The settings that change nothing, or that are refused without being named."""
    found = []
    for key, change in changes.items():
        given = (*base, *change.given)
        value = f"runs/{change.value}" if key == "output" else change.value
        before, after = traces.of(*given), traces.of(*given, *change.also, f"{key}={value}")
        refused = after[0] == "refused"
        named = key.split(".")[-1] in after[1] or value in after[1]
        if after == before or (refused and before[0] != "refused" and not named):
            found.append(f"{key}={value}: {after[1] if refused else 'nothing changes'}")
    return found


@pytest.mark.parametrize("quantized", [True, False], ids=["cove", "base"])
@pytest.mark.parametrize("task", RUNS)
def test_every_setting_acts_or_is_refused(task: str, quantized: bool, folders: dict[str, Path], traces: Traces) -> None:
    quantizer = COVE[task] if quantized else ()
    base = (*RUNS[task], f"data.path={folders[task]}", "output=runs/run", *SMALL, *quantizer)
    composed = OmegaConf.to_container(load_run_config(base)[1])
    keys = [key for key in flat(composed) if not key.startswith("model.") and key not in ELSEWHERE]
    unknown = [key for key in keys if key not in CHANGES]
    assert not unknown, f"say in CHANGES what shows that {', '.join(unknown)} acts"
    assert traces.of(*base)[0] != "refused", traces.of(*base)
    assert traces.again(*base) == traces.of(*base), "equal runs leave different traces, which would show nothing"
    changes = CHANGES | ({} if quantized else OF_BASE) | (OF_SEQUENTIAL if task == "sequential" else {})
    assert silent(traces, base, {key: changes[key] for key in keys}) == []


@pytest.mark.parametrize("model", sorted(path.stem for path in (config_folder() / "model").glob("*.yaml")))
def test_every_argument_of_every_model_acts_or_is_refused(model: str, folders: dict[str, Path], traces: Traces) -> None:
    section = OmegaConf.to_container(compose_run_config([f"model={model}"]).model)
    spec = ModelSpec.resolve(section)
    arguments, task = spec.arguments, spec.kind.task
    fewer = [f"model.{name}={value}" for name, value in FEWER.items() if name in arguments]
    data = {"cf": "data=toys", "sequential": "data=aotm"}.get(task, "data=custom")
    rates = ("trainer.optimizer.learning_rate=0.1", "embeddings.optimizer.learning_rate=0.1")  # weights start small
    base = (data, f"model={model}", *fewer, f"data.path={folders[task]}", "output=runs/run", *SMALL, *rates)
    assert traces.of(*base)[0] != "refused", traces.of(*base)
    assert silent(traces, base, {f"model.{name}": Change(MODELS[name]) for name in arguments}) == []


def test_the_rankings_of_the_test_split_act_where_a_run_is_evaluated(folders: dict[str, Path], tmp_path: Path) -> None:
    names = []
    for number, ranking in enumerate(("[sampled]", "[sampled,full]")):
        run = ("output=" + str(tmp_path / str(number)), f"evaluation.rank_test={ranking}", f"data.path={folders['cf']}")
        program.train([*RUNS["cf"], *SMALL, *run])
        evaluated = evaluate_run([f"run={tmp_path / str(number)}", "device=cpu", "by_frequency=false"])
        names.append({name for name in evaluated.metrics if name.startswith("full_ndcg")})
    assert names[0] == set() and names[1] != set()


@pytest.mark.parametrize(("model", "setting"), [("dlrm", "model.bottom_units=[6]"), ("fibinet", "model.bilinear=all")])
def test_an_argument_that_the_data_have_no_use_for_is_refused(
    model: str, setting: str, prepared: Path, traces: Traces
) -> None:
    """The data have two columns of ids and none of numbers."""
    base = (f"model={model}", "model.hidden_units=[8]", f"data.path={prepared}", "output=runs/run", *SMALL)
    refused, message = traces.of(*base, setting)
    assert refused == "refused"
    assert message.startswith(f"{setting.replace('=', ' = ')}: would do nothing: ")
