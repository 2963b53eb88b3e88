"""Classes that a configuration names are imported only from the package and from packages that the user allows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cove_dist.allowed_packages import ALLOWED, allow_targets
from cove_dist.cli import parse_flags
from cove_dist.config.checks import target
from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config

DEEPFM = "cove_dist.models.ctr.deepfm.DeepFM"


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "this", "this.s", "antigravity.webbrowser", "builtins.eval", "cove_dist", "cove_dist_more.Model",
        "cove_dist..models", ".cove_dist.Model", "cove_dist.os.system", "cove_dist.runs.Path",
        "cove_dist.runs.json.JSONDecoder",         "cove_dist.distributed.os.system",
        "cove_dist.__main__.main", "cove_dist.models.ctr.deepfm.DeepFM.__init__",
        "cove_dist.models.ctr.deepfm.torch.nn.Linear", "tests_of_someone.Model", "pathlib.Path", "", "None", "a b.C",
    ],
)  # fmt: skip
def test_a_name_from_elsewhere_is_refused_before_it_is_imported(name: str) -> None:
    before = set(sys.modules) - {"this", "antigravity"}
    for module in ("this", "antigravity", "cove_dist.__main__"):
        sys.modules.pop(module, None)
    with pytest.raises(ConfigError, match=r"model\._target_ = .*: (is not imported|not a class that can be imported)"):
        target({"_target_": name}, "model")
    assert not {"this", "antigravity", "cove_dist.__main__"} & set(sys.modules)
    assert {module for module in set(sys.modules) - before if not module.startswith("cove_dist")} == set()


def test_a_run_folder_or_an_override_imports_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_model.py").write_text("import pathlib\npathlib.Path('PWNED').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"hostile_model\.Mine: is not imported; .* allow_targets=\[hostile_model"):
        load_run_config(["model._target_=hostile_model.Mine"])
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("value", ["[mine_a, mine_b.models]", "['mine_a','mine_b.models']", "mine_a,mine_b.models"])
def test_only_the_allowed_package_and_its_modules_are_imported(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, "")
    for package in ("mine_a", "mine_b"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "models.py").write_text(
            f"from {DEEPFM.rpartition('.')[0]} import DeepFM\nclass Mine(DeepFM): ..."
        )
    monkeypatch.syspath_prepend(tmp_path)
    assert parse_flags([f"allow_targets={value}", "seed=3"]) == (set(), ["seed=3"])
    for name in ("mine_a.models.Mine", "mine_b.models.Mine", DEEPFM):
        assert ModelSpec.resolve({"_target_": name}).name in ("Mine", "DeepFM")
    for name in ("mine_b.Mine", "mine_ab.models.Mine"):
        with pytest.raises(
            ConfigError, match=r"is not imported; allowed are public classes of .*, mine_a, mine_b\.models"
        ):
            target({"_target_": name}, "model")


def test_what_is_allowed_must_be_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "")
    for name in ("", "my-package", "a/b", "a..b", "*"):
        with pytest.raises(ConfigError, match="not the name of a package or module"):
            allow_targets(name)


def test_a_saved_configuration_reads_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "config.yaml").write_text(
        "data: {path: '${oc.env:SECRET}', name: \"x${oc.decode:'${oc.env:SECRET}'}\"}\n"
    )
    values = plain(read_yaml(tmp_path / "config.yaml"))
    assert values == {"data": {"path": "${oc.env:SECRET}", "name": "x${oc.decode:'${oc.env:SECRET}'}"}}
