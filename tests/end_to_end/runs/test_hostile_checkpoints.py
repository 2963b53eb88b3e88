"""Checkpoints that someone made to run code when they are loaded. Their manifests are valid."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from cove_dist.checkpoints.manifest import MANIFEST, describe_file, verify, write_manifest
from cove_dist.checkpoints.rank_state import decode, encode
from cove_dist.checkpoints.storage import read_metadata
from cove_dist.cli import main
from cove_dist.errors import CheckpointError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.training.program import train
from tests.configurations import small_run


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def touching(path: Path) -> Call:
    return Call(os.system, f"touch {path}")


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("hostile") / "run"
    train(small_run(prepared, run, "trainer.max_steps=1"))
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "step_00000001"


def sign(checkpoint: Path) -> None:
    """Make the manifest agree with the files, as whoever changes them would."""
    files = [path for path in checkpoint.iterdir() if path.name != MANIFEST]
    write_manifest(checkpoint, {path.name: describe_file(path) for path in files})
    verify(checkpoint)


def stack_global(module: str, name: str, *opcodes: bytes) -> bytes:
    """Pickle a reference to a name, which may have dots, and what follows it."""
    texts = b"".join(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name))
    return pickle.PROTO + b"\x04" + texts + pickle.STACK_GLOBAL + b"".join(opcodes) + pickle.STOP


def called_with(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() + pickle.TUPLE1 + pickle.REDUCE


_METADATA, _COMMAND = Metadata.__module__, "touch PWNED"
# (None, {"marked": 1}): the second part is set by setattr, also on a class
_SLOTS = pickle.NONE + pickle.EMPTY_DICT + pickle.UNICODE + b"marked\n" + pickle.INT + b"1\n" + pickle.SETITEM
PAYLOADS: dict[str, bytes] = {
    "os.system": pickle.dumps(Call(os.system, _COMMAND)),
    "os.system, protocol 0": pickle.dumps(Call(os.system, _COMMAND), protocol=0),
    "eval": pickle.dumps(Call(eval, "open('PWNED', 'w')")),
    "partial": pickle.dumps(Call(functools.partial, os.system, _COMMAND)),
    "in a field": pickle.dumps(Metadata({}, planner_data=Call(os.system, _COMMAND), storage_data={})),
    "as a key": pickle.dumps({MetadataIndex("a"): Call(os.system, _COMMAND)}),
    "dotted name": stack_global(_METADATA, "os.system", called_with(_COMMAND)),
    "dotted name through a class": stack_global(_METADATA, "Metadata.__init__.__globals__"),
    "dotted module": stack_global("torch.serialization", "os.system", called_with(_COMMAND)),
    "another class of torch": stack_global("torch.hub", "load", called_with("me/mine")),
    "an attribute of a class": stack_global(_METADATA, "BytesStorageMetadata", _SLOTS, pickle.TUPLE2, pickle.BUILD),
    "a persistent id": pickle.PROTO + b"\x02" + pickle.NONE + pickle.BINPERSID + pickle.STOP,
    "no metadata": pickle.dumps({"a": 1}),
    "garbage": b"not a pickle",
    "cut": pickle.dumps(Metadata({}, storage_data={}))[:-5],
    "empty": b"",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_metadata_that_refers_to_anything_else_is_refused_and_runs_nothing(
    checkpoint: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(vars(BytesStorageMetadata))
    (checkpoint / ".metadata").write_bytes(PAYLOADS[name])
    sign(checkpoint)
    with pytest.raises(CheckpointError, match=rf"^{checkpoint}/\.metadata: not the metadata of a checkpoint: [^\n]*$"):
        read_metadata(checkpoint)
    assert not (tmp_path / "PWNED").exists()
    assert set(vars(BytesStorageMetadata)) == before


def test_the_payloads_do_harm_where_nothing_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "os.system, protocol 0", "eval", "in a field", "dotted name", "dotted module"):
        pickle.loads(PAYLOADS[name])
        (tmp_path / "PWNED").unlink()
    pickle.loads(PAYLOADS["an attribute of a class"])
    assert BytesStorageMetadata.marked == 1
    del BytesStorageMetadata.marked


@pytest.mark.parametrize("place", ["../../../secret", "/etc/passwd", "step_00000001"])
def test_metadata_that_refers_to_a_file_elsewhere_is_refused(checkpoint: Path, place: str) -> None:
    metadata = read_metadata(checkpoint)
    next(iter(metadata.storage_data.values())).relative_path = place
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    sign(checkpoint)
    with pytest.raises(CheckpointError, match=f"it refers to '{place}', which is not a file of the checkpoint"):
        read_metadata(checkpoint)


@pytest.mark.parametrize("kind", ["object", "tensor"])
def test_a_pickle_in_a_shard_is_not_loaded(run: Path, checkpoint: Path, kind: str, tmp_path: Path) -> None:
    """A tensor that `.metadata` calls an object would be unpickled without limits."""
    metadata = read_metadata(checkpoint)
    shard = checkpoint / "__0_0.distcp"
    start, pwned = shard.stat().st_size, tmp_path / "PWNED"
    with shard.open("ab") as file:
        torch.save(touching(pwned), file)
    index = next(index for index in metadata.storage_data if index.fqn.startswith("model."))
    metadata.storage_data[index].offset, metadata.storage_data[index].length = start, shard.stat().st_size - start
    if kind == "object":
        metadata.storage_data[MetadataIndex(index.fqn)] = metadata.storage_data.pop(index)
        metadata.state_dict_metadata[index.fqn] = BytesStorageMetadata()
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    sign(checkpoint)
    says = {
        "object": "stored as a pickled object",
        "tensor": "cannot be loaded: UnpicklingError: Weights only load failed",
    }
    with pytest.raises(CheckpointError, match=says[kind]):
        evaluate_run([f"run={run}", "checkpoint=newest", "device=cpu"])
    assert not pwned.exists()


def test_an_evaluation_says_in_one_line_what_the_metadata_refer_to(run: Path, checkpoint: Path) -> None:
    (checkpoint / ".metadata").write_bytes(PAYLOADS["eval"])
    sign(checkpoint)
    with pytest.raises(
        CheckpointError, match=r"^[^\n]*\.metadata: not [^;]*refers to builtins\.eval, which is not allowed\.[^;]*$"
    ):
        evaluate_run([f"run={run}", "checkpoint=newest", "device=cpu"])


def test_the_state_of_a_rank_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    state = {"a": {"view": table[:, 1], "same": table, "none": None, 3: [1.5, "x", True]}, "empty": {}, "tensor": "0"}
    (tmp_path / "state").write_bytes(encode({**state, "pair": (table, None)}))
    read = decode(tmp_path / "state")
    assert torch.equal(read["a"].pop("view"), state["a"].pop("view"))
    assert torch.equal(read["a"].pop("same"), state["a"].pop("same"))
    first, second = read.pop("pair")
    assert torch.equal(first, table)
    assert second is None
    assert read == state


@pytest.mark.parametrize("content", [b"", pickle.dumps(Call(os.system, _COMMAND)), encode({})[:-1], b"\xff" * 64])
def test_a_state_of_a_rank_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(CheckpointError, match="not the state of a rank"):
        decode(tmp_path / "state")


def test_metrics_that_cannot_be_saved_are_shown(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else has the name of their file."""

    def end(code: int) -> None:
        raise SystemExit(code)

    (run / "metrics_test_best.json").mkdir()
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", f"run={run}", "device=cpu"])
    printed = capsys.readouterr()
    assert "auc" in printed.out
    path = run / "metrics_test_best.json"
    assert printed.err.splitlines()[-1] == (
        f"error: the metrics could not be saved: {path}: cannot be written: Is a directory"
    )
