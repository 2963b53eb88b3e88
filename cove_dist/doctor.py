"""Checks an installation: ``python -m cove_dist.doctor``."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, version

TESTED = (  # the newest first; `make setup` installs it
    {"torch": "2.13.0", "fbgemm": "1.8.0", "torchrec": "1.8.0"},
    {"torch": "2.11.0", "fbgemm": "1.6.0", "torchrec": "1.6.1"},
)
FBGEMM_BUILDS = {"cpu": "fbgemm-gpu-cpu", "cuda": "fbgemm-gpu"}
OTHERS = ("torchmetrics", "hydra-core", "pyarrow", "duckdb", "pydantic", "numpy")


@dataclass
class Diagnosis:
    """Versions found, and what is wrong with the remedy."""

    versions: dict[str, str] = field(default_factory=dict)
    backend: str = "none"
    problems: list[str] = field(default_factory=list)


def find_version(*names: str) -> str | None:
    """The version of the first of these distributions that is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def examine() -> Diagnosis:
    """Look at the installed packages; imports torch and, if its versions fit, fbgemm_gpu and torchrec."""
    found = {
        "torch": find_version("torch"),
        "fbgemm": find_version(*FBGEMM_BUILDS.values()),
        "torchrec": find_version("torchrec"),
    }
    others = {name: find_version(name) for name in OTHERS}
    diagnosis = Diagnosis({name: number or "missing" for name, number in (found | others).items()})
    missing = [name for name, number in (found | others).items() if number is None]
    if missing:
        diagnosis.problems.append(f"{', '.join(missing)}: not installed. Run `make setup`.")
    diagnosis.problems += mismatches(found)
    if not diagnosis.problems:
        diagnosis.backend, problems = examine_backend()
        diagnosis.problems += problems
    return diagnosis


def mismatches(found: dict[str, str | None]) -> list[str]:
    """Compare the versions of torch, fbgemm and torchrec with those tested together.

    The three are built against each other: a minor release of one fits one minor release of each of the others.

    Args:
        found: the installed version by name; None for a package that is missing, which fits every version.

    Returns:
        One problem per package that differs from the tested versions nearest to the installed ones; none if all fit.
    """
    wrong = min(
        ([name for name, number in found.items() if not _fits(number, tested[name])] for tested in TESTED), key=len
    )
    allowed = "; or ".join(", ".join(f"{name} {number}" for name, number in tested.items()) for tested in TESTED)
    return [
        f"{name} {found[name]}: not tested with the other versions; tested together are {allowed}. Run `make setup`, or"
        " install one of these for your accelerator."
        for name in wrong
    ]


def _fits(number: str | None, tested: str) -> bool:
    """Return whether a version has the major and minor number of the tested one."""
    return number is None or number.split("+")[0].split(".")[:2] == tested.split(".")[:2]


def examine_backend() -> tuple[str, list[str]]:
    """The device that training will use, and what keeps it from working."""
    torch = importlib.import_module("torch")
    backend = "cuda (nccl)" if torch.cuda.is_available() else "cpu (gloo)"
    try:
        importlib.import_module("fbgemm_gpu")
        importlib.import_module("torchrec")
    except (ImportError, OSError) as error:
        return backend, [f"fbgemm_gpu or torchrec does not load with this torch: {error}. Run `make setup`."]
    builds = [build for build, name in FBGEMM_BUILDS.items() if _installed(name)]
    if torch.cuda.is_available() and builds == ["cpu"]:
        return backend, ["fbgemm-gpu-cpu on a machine with a GPU: run `make setup ACCELERATOR=cuda`."]
    return backend, []


def _installed(name: str) -> bool:
    try:
        return distribution(name) is not None
    except PackageNotFoundError:
        return False


def main() -> None:
    diagnosis = examine()
    for name, number in diagnosis.versions.items():
        print(f"{name:14}{number}")
    print(f"{'backend':14}{diagnosis.backend}")
    for problem in diagnosis.problems:
        print(f"problem: {problem}", file=sys.stderr)
    sys.exit(1 if diagnosis.problems else 0)


if __name__ == "__main__":
    main()
