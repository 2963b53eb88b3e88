"""What is exported against what the run itself answers."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as torch_load

import cove_dist as cove
from cove_dist import cli
from cove_dist.errors import ConfigError
from cove_dist.inference.export import export_run
from tests.end_to_end.python_api.conftest import ITEMS


def test_exports_hold_what_the_run_answers(
    cf: cove.Run, sequential: cove.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(
        [
            "export",
            f"run={cf.folder}",
            "what=[embeddings,codes,index,model]",
            "device=cpu",
            f"output={tmp_path / 'out'}",
        ]
    )
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["codes", "embeddings", "index", "model"]
    assert pq.read_table(out / "embeddings" / "item.parquet").to_pylist() == cf.embeddings("item").to_pylist()
    vectors = load_file(out / "embeddings" / "embeddings.safetensors")
    users, items = (cf.embeddings(entity) for entity in ("user", "item"))
    assert vectors["user"].tolist() == users["embedding"].to_pylist()
    index = faiss.read_index(str(out / "index" / "item.faiss"))
    row = users["original_id"].to_pylist().index("u7")
    _, found = index.search(vectors["user"][row : row + 1], 5)
    positions = pq.read_table(out / "index" / "item.parquet")["original_id"].to_pylist()
    listed = cf.recommend(["u7"], k=5, history="keep")["item"].to_pylist()
    assert [positions[place] for place in found[0]] == listed
    program = torch.export.load(out / "model" / "model.pt2").module()
    codes = [items["original_id"].to_pylist().index(item) for item in listed]
    scores = program(torch.tensor([[row, code] for code in codes]))
    assert scores.tolist() == pytest.approx(cf.score(["u7"] * 5, listed).tolist(), abs=1e-7)
    cli.main(["export", f"run={sequential.folder}", "what=[index]", "device=cpu"])
    assert faiss.read_index(str(sequential.folder / "index" / "item.faiss")).ntotal == ITEMS


def test_python_exports_what_the_command_exports(cf: cove.Run, ctr: cove.Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cf.export(["embeddings", "codes"], out, batch_size=7) == [out / "embeddings", out / "codes"]
    assert pq.read_table(out / "embeddings" / "item.parquet").to_pylist() == cf.embeddings("item").to_pylist()
    codes = pq.read_table(out / "codes" / "item").drop_columns("entity")
    assert codes.to_pylist() == cf.codes("item").to_pylist()
    [folder] = ctr.export("embeddings", tmp_path / "int8", "int8")
    assert set(json.loads((folder / "export.json").read_text())["metrics"]) >= {"auc", "logloss"}
    assert ctr.export() == [ctr.folder / "codes"]
    with pytest.raises(ConfigError, match=r"batch_size = 7: acts on what=\[codes\]; remove it"):
        cf.export("embeddings", batch_size=7)
    with pytest.raises(ConfigError, match=r"what\.0 = pdf: input should be 'codes', 'embeddings'"):
        cf.export("pdf")


@pytest.mark.parametrize("task", ["ctr", "cf", "sequential"])
def test_rounded_exports_state_the_change_of_every_metric(
    task: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: cove.Run = request.getfixturevalue(task)
    words = ["export", f"run={run.folder}", "what=[embeddings]", "device=cpu"]
    cli.main([*words, "precision=int8", f"output={tmp_path / 'int8'}"])
    assert "tables in int8" in capsys.readouterr().out
    about = json.loads((tmp_path / "int8" / "export.json").read_text())
    assert about["split"] == "test"
    evaluated = run.evaluate("test")
    for name, values in about["metrics"].items():
        assert values["float32"] == pytest.approx(evaluated[name], abs=1e-6)
        assert values["change"] == pytest.approx(values["int8"] - values["float32"])
        assert values["int8"] == pytest.approx(values["float32"], abs=0.1)
    vectors = np.array(run.embeddings("item")["embedding"].to_pylist(), np.float32)
    stored = pq.read_table(tmp_path / "int8" / "item.parquet")
    scale = stored["scale"].to_numpy()[:, None]
    assert scale[:, 0] == pytest.approx(np.abs(vectors).max(axis=1) / 127)
    restored = np.array(stored["embedding"].to_pylist()) * scale
    assert (np.abs(restored - vectors) <= scale / 2 + 1e-7).all()
    assert np.abs(restored - vectors).max() > 0
    cli.main([*words, "precision=bfloat16", f"output={tmp_path / 'bfloat16'}"])
    half = torch_load(tmp_path / "bfloat16" / "embeddings.safetensors")["item"]
    assert half.dtype is torch.bfloat16
    assert half.float().numpy() == pytest.approx(vectors, rel=2**-8)


def test_an_export_of_rounded_codes_is_refused(cf: cove.Run) -> None:
    with pytest.raises(ConfigError, match=r"precision = int8: acts on embeddings, model, onnx; export codes, index by"):
        export_run([f"run={cf.folder}", "what=[codes,index,model]", "precision=int8"])


def test_a_refused_kind_leaves_nothing_of_the_others(ctr: cove.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"index: the score of \w+ is no inner product"):
        export_run([f"run={ctr.folder}", "what=[embeddings,index]", "device=cpu", f"output={tmp_path / 'out'}"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
