"""The installation check."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist import doctor


def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "torchrec" in out
    assert "backend" in out


def test_a_triple_that_does_not_match_is_named_with_the_remedy() -> None:
    [problem] = doctor.mismatches({"torch": "2.13.0+cpu", "fbgemm": "1.7.0", "torchrec": "1.8.0"})
    assert "fbgemm 1.7.0" in problem
    assert "cove doctor --install cpu" in problem


@pytest.mark.parametrize(
    "versions",
    [("2.13.1+cu130", "1.8.0", "1.8.0"), ("2.14.1+cu130", "1.9.0", "1.9.2"), ("2.11.0+cpu", "1.6.0", "1.6.1")],
    ids=["installed", "newest", "oldest"],
)
def test_patch_releases_and_local_builds_of_all_tested_versions_are_accepted(versions: tuple[str, str, str]) -> None:
    assert doctor.mismatches(dict(zip(("torch", "fbgemm", "torchrec"), versions, strict=True))) == []


def test_packages_from_two_tested_sets_of_versions_are_refused() -> None:
    [problem] = doctor.mismatches({"torch": "2.11.0", "fbgemm": "1.8.0", "torchrec": "1.8.0"})
    assert "torch 2.11.0" in problem
    assert "torch 2.13.0" in problem


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    with pytest.raises(SystemExit) as ended:
        doctor.main([])
    assert ended.value.code == 1
    assert "no-such-package: not installed" in capsys.readouterr().err


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_version", lambda *names: None)
    problems = doctor.examine().problems
    assert problems[0] == "torch, fbgemm, torchrec: not installed. Run cove doctor --install cpu (or cuda)."
    assert all(name in problems[1] for name in doctor.REQUIRED)
    extras = ("prepare", "remote", "spark", "report", "tune", "faiss", "onnx", "wandb", "mlflow")
    assert [line.rpartition(" ")[2] for line in doctor.examine().optional] == [
        f"'cove-dist[{extra}]'" for extra in extras
    ]


def test_a_module_that_is_missing_has_its_remedy() -> None:
    assert doctor.remedy("duckdb") == "pip install 'cove-dist[prepare]'"
    assert doctor.remedy("pyspark") == doctor.remedy("sqlglot") == "pip install 'cove-dist[spark]'"
    assert doctor.remedy("sklearn") == "pip install 'cove-dist[report]'"
    assert doctor.remedy("fsspec") == "pip install 'cove-dist[remote]'"
    assert doctor.remedy("torchrec") == doctor.INSTALL
    assert doctor.remedy("mine") is None
    assert [doctor.remedy(module) for module in ("scipy", "pyarrow", "hydra", "annotated_types")] == [
        "pip install scipy", "pip install pyarrow", "pip install hydra-core", "pip install annotated-types",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "accelerator", "uninstalled"),
    [
        (["fbgemm-gpu-cpu"], "cuda", ["fbgemm-gpu-cpu"]),
        (["fbgemm-gpu-cpu"], "cpu", None),
        ([], "cuda", None),
        (["fbgemm-gpu-cpu", "fbgemm-gpu"], "cuda", ["fbgemm-gpu-cpu", "fbgemm-gpu"]),  # what is left would be damaged
    ],
)
def test_the_other_build_of_fbgemm_is_uninstalled_first(
    monkeypatch: pytest.MonkeyPatch, there: list[str], accelerator: str, uninstalled: list[str] | None
) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: name in there)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: True)
    pip = [doctor.sys.executable, "-m", "pip"]
    *before, first, _ = doctor.commands(accelerator)
    assert before == ([] if uninstalled is None else [[*pip, "uninstall", "-y", *uninstalled]])
    assert first[:5] == [*pip, "install", "torch==2.13.0"]
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/uv")
    *before, first, _ = doctor.commands(accelerator)
    uv, here = ["/bin/uv", "pip"], ["--python", doctor.sys.executable]
    assert before == ([] if uninstalled is None else [[*uv, "uninstall", *here, *uninstalled]])
    assert first[:5] == [*uv, "install", *here]


def test_two_builds_of_fbgemm_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: True)
    [problem] = doctor.examine_backend()[1]
    assert problem.startswith("fbgemm-gpu-cpu and fbgemm-gpu: both are installed")
    assert problem.endswith("Run cove doctor --install cpu (or cuda), which uninstalls both first.")


def test_an_installation_takes_torchrec_without_its_dependencies(capsys: pytest.CaptureFixture[str]) -> None:
    """Its metadata asks for the CUDA build of fbgemm."""
    doctor.main(["--install", "cpu", "--dry-run"])
    first, second = capsys.readouterr().out.splitlines()
    assert "torch==2.13.0 fbgemm-gpu-cpu==1.8.0 " in first
    assert second.endswith("install --no-deps torchrec==1.8.0")


def test_what_an_installation_brings_is_what_was_locked() -> None:
    locked = (Path(__file__).parents[2] / "requirements" / "cpu.txt").read_text().lower()
    numbers = doctor.TESTED[0]
    pins = [f"torch=={numbers['torch']}", f"fbgemm_gpu-cpu=={numbers['fbgemm']}", f"torchrec=={numbers['torchrec']}"]
    for pin in (*pins, *doctor.TORCHREC_NEEDS):
        assert f"\n{pin}" in locked, pin
