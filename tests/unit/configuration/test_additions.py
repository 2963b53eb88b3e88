"""What it takes to add a setting: it is declared by its section and its YAML file, and no module repeats it."""

from __future__ import annotations

import ast
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from omegaconf import OmegaConf

import cove_dist
from cove_dist.config import QuantizerConfig
from cove_dist.config.overrides import flat
from cove_dist.quantization import MaintenanceSettings
from cove_dist.tasks.configuration import compose_run_config, load_run_config

PACKAGE = Path(cove_dist.__file__).parent
SECTIONS = ("trainer.", "quantizer.")


def test_a_setting_of_the_quantizer_is_passed_on_only_by_its_section() -> None:
    """So it is a field and a name in ``config/quantizer.py``, a line of YAML, and what the quantizer does with it."""
    config, _ = load_run_config(["quantizer=cove"])
    arguments, maintenance = config.quantizer.arguments(), config.quantizer.maintenance()
    nodes = list(ast.walk(ast.parse((PACKAGE / "tasks/quantizers.py").read_text())))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {node.arg for node in nodes if isinstance(node, ast.keyword)}
    assert named & arguments.keys() == set()
    assert maintenance.keys() | {"seed"} == {each.name for each in fields(MaintenanceSettings)}
    written = yaml.safe_load((PACKAGE.parent / "configs/quantizer/cove.yaml").read_text())
    assert written.keys() == {each.name for each in fields(QuantizerConfig)} > arguments.keys() | maintenance.keys()


def test_a_setting_of_the_trainer_is_declared_by_its_section_and_its_yaml_file() -> None:
    """Whether a resumed run may change it is said there too: no other module lists keys of these sections."""
    keys = [key for key in flat(OmegaConf.to_container(compose_run_config([]))) if key.startswith(SECTIONS)]
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        listed = {key for key in keys for text in texts if text.startswith(SECTIONS) and fnmatchcase(key, text)}
        if listed and not name.startswith("config/"):
            found[name] = listed
    assert found == {
        "tasks/configuration.py": {"quantizer.user_levels", "quantizer.item_levels"},  # parts of a run's default name
        "tasks/inheritance.py": {
            "trainer.checkpoint.resume",
            "trainer.debug",
            "trainer.device",
            "trainer.max_steps",
        },  # not of a warm start's run
        "planning/request.py": {"trainer.device"},  # the planned device is a setting of `cove plan`
        "training/resume.py": {"trainer.checkpoint.resume"},  # says how this start was asked for
        "warm_start/source.py": {"trainer.optimizer.name"},  # says whose moments fit
    }
