"""Codes of all ids, exported by 1, 2 and 4 ranks from one checkpoint."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed.checkpoint as dcp
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.errors import ConfigError
from cove_dist.inference.codes import EntityExporter, export_codes, list_chunks
from cove_dist.tasks.configuration import compose_run_config
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.unit.data.prepare_helpers import prepare_custom, some_rows, write_csv

LEVELS = {"user": (8, 3), "item": (12, 4)}  # of COVE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text ids; most items are in validation or test alone."""
    folder = tmp_path_factory.mktemp("export")
    rows = [(f"Zoë {user}", f"item {item}", label, time) for user, item, label, time in some_rows(users=41)]
    prepare_custom(write_csv(folder / "raw.csv", rows), folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables wide enough to be cut by column."""
    folder = tmp_path_factory.mktemp("export") / "run"
    settings = ("embeddings.dim=64", "embeddings.init_std=0.3", "embeddings.optimizer.learning_rate=0.1")
    run_ranks(1, train, small_run(data, folder, *COVE, *ROW_WISE, *settings))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run folder to change: the configuration, and the checkpoints of the trained one."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    (folder / "checkpoints").symlink_to(trained / "checkpoints")
    return folder


def change(run: Path, **values: object) -> None:
    config = OmegaConf.load(run / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.save(config, run / "config.yaml")


def arguments(run: Path, *more: str) -> list[str]:
    """The user table is looked up in three steps or more."""
    return [f"run={run}", "checkpoint=newest", "device=cpu", "batch_size=13", *more]


def exported(folder: Path, entity: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / entity).glob("part-*.parquet"))])


def in_checkpoint(run: Path) -> dict[str, torch.Tensor]:
    """Whole tables and codebooks, read without a model."""
    path = CheckpointFolder(run / "checkpoints").newest()
    saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    wanted = (key for key in saved if key.startswith("model.tables.") or ".codebooks." in key)
    state = {key: torch.empty(saved[key].size) for key in wanted}
    dcp.load(state, checkpoint_id=path, no_dist=True)
    return state


def expected(run: Path, data: Path, entity: str, codebooks: dict[str, torch.Tensor]) -> pa.Table:
    """Eq. 2 on the whole table in float64."""
    column = Schema.load(data).entity(entity)
    z = in_checkpoint(run)[f"model.tables.embedding_bags.{column.name}.weight"][: column.num_seen].double()
    table = {
        "entity": [entity] * column.num_ids,
        "original_id": pq.read_table(data / "ids" / f"{column.name}.parquet")["original_id"],
    }
    for level in range(1, len(LEVELS[entity]) + 1):
        codebook = codebooks[f"{entity}.{level}"].double()
        codes = torch.cdist(z, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        z = codebook[codes]
        nulls = [None] * (column.num_ids - column.num_seen)
        table[f"code_{level}"] = pa.array([*codes.tolist(), *nulls], pa.int32())
    return pa.table(table)


@pytest.mark.parametrize(
    ("ranks", "sharding"),
    [
        (1, "data_parallel"),
        (2, "data_parallel"),
        (2, "row_wise"),
        (4, "row_wise"),
        (2, "column_wise"),
        (4, "table_wise"),
    ],
)
def test_ranks_and_sharding_change_no_code(run: Path, data: Path, ranks: int, sharding: str) -> None:
    change(run, embeddings__sharding={"default": sharding})
    assert run_ranks(ranks, export_codes, arguments(run)) == [run / "codes", *[None] * (ranks - 1)]
    codebooks = load_file(run / "codes" / "codebooks.safetensors")
    for entity, levels in LEVELS.items():
        codes = exported(run / "codes", entity)
        assert codes.equals(expected(run, data, entity, codebooks))
        assert len(set(codes["code_1"].to_pylist()) - {None}) > levels[0] / 2
    parts = [sorted(path.name for path in (run / "codes" / entity).iterdir()) for entity in LEVELS]
    assert parts == [[f"part-{rank:05d}.parquet" for rank in range(ranks)]] * 2


def test_the_export_describes_the_codes(run: Path, data: Path, tmp_path: Path) -> None:
    """In a folder of one's own, with parents to be made; a second export takes the place of the first."""
    folder = tmp_path / "some" / "codes"
    for _ in range(2):
        assert export_codes(arguments(run, f"output={folder}")) == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["codes"]
    saved = in_checkpoint(run)
    codebooks = load_file(folder / "codebooks.safetensors")
    assert {key: tuple(codebook.shape) for key, codebook in codebooks.items()} == {
        f"{entity}.{level}": (v, 64) for entity, levels in LEVELS.items() for level, v in enumerate(levels, start=1)
    }
    for entity, levels in LEVELS.items():
        for level in range(len(levels)):
            saved_codebook = saved[f"model.objective.quantizers.{entity}.codebooks.{level}"]
            assert torch.equal(codebooks[f"{entity}.{level + 1}"], saved_codebook)
    name = CheckpointFolder(run / "checkpoints").newest().name
    with safe_open(folder / "codebooks.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata == {"data": "small", "checkpoint": name, "alpha": "1.0", "levels": json.dumps(LEVELS)}
    record = json.loads((folder / "codes.json").read_text())
    schema = Schema.load(data)
    assert (record["data"], record["checkpoint"]) == ("small", name)
    for entity, levels in LEVELS.items():
        column, codes = schema.entity(entity), exported(folder, entity)
        used = [len(set(codes[f"code_{level}"].drop_null().to_pylist())) for level in (1, 2)]
        unseen = column.num_ids - len(pq.read_table(data / "train", columns=[column.name])[column.name].unique())
        assert (unseen > 0) == (entity == "item")
        figures = {"ids": column.num_ids, "unseen": unseen, "levels": list(levels), "used": used}
        assert record["entities"][entity] == figures


def die_in_the_second_step(overrides: list[str]) -> None:
    """Rank 1 dies without a word, as a lost machine does."""
    steps = []
    look_up = EntityExporter._codes

    def dying(self: EntityExporter, rows, stride: int):
        steps.append(stride)
        if self.context.rank == 1 and len(steps) == 2:
            os._exit(1)
        return look_up(self, rows, stride)

    EntityExporter._codes = dying
    export_codes(overrides)


def test_an_export_cut_short_leaves_the_earlier_one(run: Path) -> None:
    export_codes(arguments(run))
    before = exported(run / "codes", "item")
    with pytest.raises(AssertionError, match=r"died|rank"):
        run_ranks(2, die_in_the_second_step, arguments(run))
    assert exported(run / "codes", "item").equals(before)
    export_codes(arguments(run))
    assert exported(run / "codes", "item").equals(before)
    assert not [path for pattern in ("codes.*", ".codes.*") for path in run.glob(pattern)]


@pytest.mark.parametrize(("num_ids", "ranks", "size"), [(41, 1, 41), (41, 2, 7), (43, 4, 5), (3, 4, 2), (40, 4, 10)])
def test_shares_hold_every_id_once_in_order_and_equal_steps(
    tmp_path: Path, num_ids: int, ranks: int, size: int
) -> None:
    table = pa.table({"id": range(num_ids), "original_id": [f"x{i}" for i in range(num_ids)]})
    pq.write_table(table, tmp_path / "ids.parquet", row_group_size=6)
    shares = [list(list_chunks(tmp_path / "ids.parquet", num_ids, size, rank, ranks)) for rank in range(ranks)]
    assert pa.concat_tables([chunk for share in shares for chunk, _ in share]).equals(table)
    strides = [[stride for _, stride in share] for share in shares]
    assert strides == [strides[0]] * ranks
    assert all(len(chunk) <= stride <= size for share in shares for chunk, stride in share)
    assert all(first == size for first, _ in pairwise(strides[0]))


def test_a_run_without_quantizers_has_no_codes(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    OmegaConf.save(compose_run_config(small_run(prepared, run)), run / "config.yaml")
    with pytest.raises(ConfigError, match=r"run = .*: has no quantizers, so there are no codes"):
        export_codes([f"run={run}"])
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_folder_of_other_things_is_not_replaced(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output = .*: exists and holds no exported codes"):
        export_codes(arguments(run, f"output={run}"))
    assert (run / "config.yaml").is_file()


def test_ids_of_another_preparation_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    (other / "ids").mkdir(parents=True)
    (other / "schema.json").write_bytes((data / "schema.json").read_bytes())
    users = pq.read_table(data / "ids" / "user_id.parquet")
    pq.write_table(users[:-1], other / "ids" / "user_id.parquet")
    change(run, data__path=str(other))
    with pytest.raises(DataError, match=r"user_id\.parquet: 40 rows, while schema\.json has num_ids = 41 for user_id"):
        export_codes(arguments(run))
    (other / "ids" / "user_id.parquet").write_bytes((data / "ids" / "user_id.parquet").read_bytes())
    with pytest.raises(DataError, match=r"item_id\.parquet: no such file"):
        export_codes(arguments(run))
