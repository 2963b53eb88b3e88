"""Packages depend on each other in one direction, annotations included."""

from __future__ import annotations

from pathlib import Path

import pytest

import cove_dist
import data_pipeline
from tests.unit.test_distributed_layout import imported

ROOT = Path(cove_dist.__file__).parent
# Parts of cove_dist. Each may import those after it.
ORDER = (
    "__main__", "cli", "__init__", "api", "commands",
    "experiments", "report", "inference", "planning", "training", "warm_start", "tasks",
    "from_python", "loggers", "embeddings", "checkpoints", "faults", "config", "runs",
    "losses", "models", "quantization", "evaluation",
    "shared_memory", "distributed", "liveness", "torch_compat",
    "doctor", "config_folders", "allowed_packages", "console", "process_exit", "types", "errors",
)  # fmt: skip
LEAVES = ("torchrec", "torch.distributed", "cove_dist.distributed", "cove_dist.config", "cove_dist.tasks")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def parts_imported(path: Path) -> set[str]:
    """Return the parts of cove_dist that a module imports, also below ``if TYPE_CHECKING`` and in functions."""
    names = [name.split(".") for name in imported(path.read_text()) if name.split(".")[0] == "cove_dist"]
    return {name[1] for name in names if len(name) > 1 and name[1] in ORDER} - {part_of(path)}


def test_the_order_names_every_part() -> None:
    found = {part_of(path) for path in ROOT.rglob("*.py")}
    assert found == set(ORDER)


@pytest.mark.parametrize("part", ORDER)
def test_a_part_imports_only_parts_after_it(part: str) -> None:
    allowed = set(ORDER[ORDER.index(part) :])
    paths = [path for path in ROOT.rglob("*.py") if part_of(path) == part]
    assert {(path.name, name) for path in paths for name in parts_imported(path) - allowed} == set()


@pytest.mark.parametrize("part", ["quantization", "models"])
def test_networks_know_neither_torchrec_nor_process_groups(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        assert not [name for name in imported(path.read_text()) if name.startswith(LEAVES)], path


def test_the_data_pipeline_knows_no_model() -> None:
    for path in Path(data_pipeline.__file__).parent.rglob("*.py"):
        assert not [name for name in imported(path.read_text()) if name.startswith("cove_dist")], path


@pytest.mark.parametrize("part", ["training", "planning", "inference", "experiments", "report", "commands", "config"])
def test_programs_and_the_trainer_know_no_task_by_name(part: str) -> None:
    names = [f"cove_dist.{package}.{name}" for package in ("tasks", "models") for name in ("cf", "ctr", "sequential")]
    for path in (ROOT / part).rglob("*.py"):
        assert not [name for name in imported(path.read_text()) if name.startswith(tuple(names))], path
