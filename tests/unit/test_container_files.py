"""Dockerfile and environment.yml: what can be checked without Docker and conda."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cove_dist import doctor

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "cove doctor --install cpu"


@pytest.fixture(scope="module")
def project() -> str:
    return (ROOT / "pyproject.toml").read_text()  # Python 3.10 cannot parse TOML


def supported(version: str, project: str) -> bool:
    return f'"Programming Language :: Python :: {version}"' in project


def has_extras(requirement: str, project: str) -> bool:
    [names] = re.findall(r"\[(.*)\]", requirement)
    section = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    return set(names.split(",")) <= set(re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE))


def test_the_image_is_built_by_the_commands_of_the_documented_installation(project: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    steps = [line.partition(" ")[::2] for line in text.splitlines() if line and not line.startswith("#")]
    words = {name: argument for name, argument in steps if name != "RUN"}
    assert {name for name, _ in steps} == {"FROM", "RUN", "WORKDIR", "COPY", "ENTRYPOINT"}
    assert supported(re.findall(r"python:(3\.\d+)-slim", words["FROM"])[0], project)
    [run] = [argument for name, argument in steps if name == "RUN" and "pip install" in argument]
    pip, install = run.split(" && ")
    assert shlex.split(pip)[:3] == ["pip", "install", "--no-cache-dir"]
    assert has_extras(pip, project)
    assert install == INSTALL
    assert words["ENTRYPOINT"] == '["cove"]'
    assert '\ncove = "cove_dist.cli:main"' in project


def test_the_conda_environment_installs_the_package_and_names_the_second_command(project: str) -> None:
    text = (ROOT / "environment.yml").read_text()
    environment = yaml.safe_load(text)
    python, pip, packages = environment["dependencies"]
    assert supported(python.removeprefix("python="), project)
    assert pip == "pip"
    [requirement] = packages["pip"]
    assert has_extras(requirement, project)
    assert f"conda run -n {environment['name']} {INSTALL}" in text


def test_the_second_command_installs_a_triple_that_was_tested(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(["--install", "cpu", "--dry-run"])
    shown = capsys.readouterr().out
    lock = (ROOT / "requirements" / "cpu.txt").read_text()
    for package in ("torch", "fbgemm-gpu-cpu", "torchrec"):
        [version] = re.findall(rf"^{package.replace('-', '[-_]')}==(\S+)", lock, flags=re.MULTILINE)
        assert f"{package}=={version.split('+')[0]}" in shown
