"""Every setting of a run acts, or is refused: changed, it changes what the run logs, writes, warns of or builds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.overrides import flat
from cove_dist.config_folders import config_folder
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from cove_dist.training import program
from data_pipeline.datasets.custom import Custom
from data_pipeline.preparation.prepare import prepare
from tests import interactions
from tests.end_to_end.changed_settings import CHANGES, ELSEWHERE, MODELS, OF_BASE, OF_SEQUENTIAL, Change
from tests.end_to_end.traces import Traces

SMALL = (
    *("embeddings.dim=8", "trainer.device=cpu", "trainer.batch_size=60", "trainer.evaluation_batch_size=28"),
    *("trainer.epochs=1", "trainer.max_steps=5", "trainer.log_every=1", "trainer.warmup_steps=0"),
)
RUNS = {
    "ctr": ("model=deepfm", "model.hidden_units=[16,8]"),
    "cf": ("data=toys", "model=neumf", "model.hidden_units=[16,8]"),
    "sequential": ("data=aotm", "model=bert4rec", "model.num_layers=1", "model.num_heads=2"),
}
OF_QUANTIZERS = ("quantizer.", "negatives.", "sequential.")  # what a run without quantizers may do otherwise
FEWER = {"hidden_units": "[20,10]", "num_layers": "1", "num_heads": "2"}  # of the models that have them
COVE = {
    "ctr": ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]"),
    "cf": ("quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]"),
    "sequential": ("quantizer=cove_items", "quantizer.item_levels=[12,4]"),
}
CTR_COLUMNS = {
    **{"user": "user", "item": "item", "label": "label", "categorical": ("kind",), "dense": ("age",)},
    **{"lists": ("before",), "list_vocabularies": {"before": "item"}},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, prepared_lists: Path) -> dict[str, Path]:
    """Prepared data of every task; of CTR with three columns of ids, one of lists and one of numbers."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(3)
    columns = {name: torch.randint(size, (600,), generator=generator) for name, size in
               (("user", 30), ("item", 40), ("kind", 5), ("age", 70), ("label", 2))}  # fmt: skip
    before = torch.randint(40, (600, 3), generator=generator).tolist()
    table = pa.table({name: values.numpy() for name, values in columns.items()} | {"before": before})
    pq.write_table(table, folder / "raw.parquet")
    prepare(Custom(source=str(folder / "raw.parquet"), **CTR_COLUMNS), folder / "ctr", name="ctr")
    return {"ctr": folder / "ctr", "cf": interactions.prepare_small(folder), "sequential": prepared_lists}


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
    tried = keys if quantized else [key for key in keys if key.startswith(OF_QUANTIZERS)]
    assert silent(traces, base, {key: changes[key] for key in tried}) == []


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
