"""Check an installation, or complete it.

TorchRec's metadata requires the CUDA build of fbgemm, so ``pip install`` of this package cannot produce a working CPU
installation. ``--install`` runs the pip commands that do:

cove doctor                     what is installed, and all that is missing
cove doctor --install cpu       torch, fbgemm and torchrec for CPU, of versions that were tested together
cove doctor --install cuda      the same for CUDA
cove doctor --install cpu --dry-run

pip's default index serves torch for Linux with CUDA libraries, which do no harm on a CPU but are large:
``PIP_EXTRA_INDEX_URL`` set to PyTorch's index of CPU builds saves some gigabytes.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, version

from cove_dist.errors import ConfigError

TESTED = (  # `make setup` and --install take the first, which has run all tests
    {"torch": "2.13.0", "fbgemm": "1.8.0", "torchrec": "1.8.0"},
    {"torch": "2.14.1", "fbgemm": "1.9.0", "torchrec": "1.9.2"},
    {"torch": "2.11.0", "fbgemm": "1.6.0", "torchrec": "1.6.1"},
)
FBGEMM_BUILDS = {"cpu": "fbgemm-gpu-cpu", "cuda": "fbgemm-gpu"}
TORCHREC_NEEDS = (
    "pyre-extensions==0.0.32",
    "tensordict==0.15.3",
    "torchmetrics==1.0.3",
    "tqdm",
)  # in addition to fbgemm
REQUIRED = ("annotated-types", "hydra-core", "numpy", "pyarrow", "pydantic", "rich", "safetensors", "scipy",
            "tensorboard", "tensordict", "torchmetrics")  # fmt: skip
EXTRAS = {  # of the package: what they bring, and which subcommands need it
    "prepare": (("duckdb",), "cove prepare, semantic_ids, warm_start.run, and ids that are dates or have fractions"),
    "remote": (("fsspec", "s3fs", "gcsfs"), "cove prepare source=s3://… or gs://…"),
    "spark": (("pyspark", "sqlglot"), "cove prepare engine=spark"),
    "report": (("jinja2", "matplotlib", "scikit-learn"), "cove report, experiment and cluster_items"),
    "tune": (("optuna",), "cove tune"),
    "faiss": (("faiss-cpu",), "FAISS indices"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "cove export what=[onnx]"),
    "wandb": (("wandb",), "logger=wandb"),
    "mlflow": (("mlflow-skinny",), "logger=mlflow"),
}
_DISTRIBUTIONS = {  # by module, where the name is another one
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "mlflow": "mlflow-skinny",
    "omegaconf": "hydra-core",
    "sklearn": "scikit-learn",
}
INSTALL = "cove doctor --install cpu (or cuda)"


@dataclass
class Diagnosis:
    """Installed versions, and problems with their remedies."""

    versions: dict[str, str] = field(default_factory=dict)
    backend: str = "none"
    problems: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)


def remedy(module: str) -> str | None:
    """Return the command that installs a missing module; None if it is not a dependency of this package."""
    if module in ("torch", "torchrec", "fbgemm_gpu", "torchmetrics", "tensordict", "pyre_extensions", "tqdm"):
        return INSTALL
    name = _DISTRIBUTIONS.get(module, module.replace("_", "-"))
    for extra, (distributions, _) in EXTRAS.items():
        if name in distributions:
            return f"pip install 'cove-dist[{extra}]'"
    return f"pip install {name}" if name in REQUIRED else None


def find_version(*names: str) -> str | None:
    """Return the version of the first of these distributions that is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def installed_versions() -> dict[str, str | None]:
    """Return the version of every required package by name, None where it is missing. Imports none of them."""
    return _found_triple() | {name: find_version(name) for name in REQUIRED}


def _found_triple() -> dict[str, str | None]:
    return {
        "torch": find_version("torch"),
        "fbgemm": find_version(*FBGEMM_BUILDS.values()),
        "torchrec": find_version("torchrec"),
    }


def examine() -> Diagnosis:
    """Examine the installed packages; import torch and, if versions match, fbgemm_gpu and torchrec."""
    triple, others = _found_triple(), {name: find_version(name) for name in REQUIRED}
    diagnosis = Diagnosis({name: number or "missing" for name, number in (triple | others).items()})
    if missing := [name for name, number in triple.items() if number is None]:
        diagnosis.problems.append(f"{', '.join(missing)}: not installed. Run {INSTALL}.")
    if missing := [name for name, number in others.items() if number is None]:
        diagnosis.problems.append(f"{', '.join(missing)}: not installed. Run pip install {' '.join(missing)}.")
    diagnosis.problems += mismatches(triple)
    for extra, (names, use) in EXTRAS.items():
        if missing := [name for name in names if find_version(name) is None]:
            diagnosis.optional.append(f"{', '.join(missing)}: for {use}: pip install 'cove-dist[{extra}]'")
    if not diagnosis.problems:
        diagnosis.backend, problems = examine_backend()
        diagnosis.problems += problems
    return diagnosis


def mismatches(found: dict[str, str | None]) -> list[str]:
    """Compare the versions of torch, fbgemm and torchrec with those tested together.

    The three are built against each other: a minor release of one fits one minor release of each of the others.

    Args:
        found: Installed version by name; None for a missing package, which matches every version.

    Returns:
        One problem per package that differs from the tested versions closest to the installed ones.
    """
    wrong = min(
        ([name for name, number in found.items() if not _fits(number, tested[name])] for tested in TESTED), key=len
    )
    allowed = "; or ".join(", ".join(f"{name} {number}" for name, number in tested.items()) for tested in TESTED)
    return [
        f"{name} {found[name]}: not tested with the other versions; tested together are {allowed}. Run {INSTALL}."
        for name in wrong
    ]


def _fits(number: str | None, tested: str) -> bool:
    """Return whether a version has the major and minor number of the tested one."""
    return number is None or number.split("+")[0].split(".")[:2] == tested.split(".")[:2]


def examine_backend() -> tuple[str, list[str]]:
    """Return the device that training will use, and the problems that prevent its use."""
    builds = [build for build, name in FBGEMM_BUILDS.items() if _installed(name)]
    if len(builds) > 1:
        both = " and ".join(FBGEMM_BUILDS.values())
        return "none", [f"{both}: both are installed, one over the other. Run {INSTALL}, which uninstalls both first."]
    torch = importlib.import_module("torch")
    backend = "cuda (nccl)" if torch.cuda.is_available() else "cpu (gloo)"
    try:
        importlib.import_module("fbgemm_gpu")
        importlib.import_module("torchrec")
    except (ImportError, OSError) as error:
        return backend, [f"fbgemm_gpu or torchrec does not load with this torch: {error}. Run {INSTALL}."]
    if torch.cuda.is_available() and builds == ["cpu"]:
        return backend, ["fbgemm-gpu-cpu on a machine with a GPU: run cove doctor --install cuda."]
    return backend, []


def _installed(name: str) -> bool:
    try:
        return distribution(name) is not None
    except PackageNotFoundError:
        return False


def commands(accelerator: str) -> list[list[str]]:
    """Return the commands that install torch, fbgemm and torchrec into this environment.

    Where the other build of fbgemm is there, which has the same files, all builds are uninstalled first.

    Raises:
        ConfigError: The environment has no pip, and there is no uv.
    """
    if importlib.util.find_spec("pip"):
        pip, yes, here = [sys.executable, "-m", "pip"], ["-y"], []
    elif uv := shutil.which("uv"):
        pip, yes, here = [uv, "pip"], [], ["--python", sys.executable]
    else:
        raise ConfigError(f"{sys.executable}: has no pip, and there is no uv; run python -m ensurepip")
    numbers = TESTED[0]
    first = [f"torch=={numbers['torch']}", f"{FBGEMM_BUILDS[accelerator]}=={numbers['fbgemm']}", *TORCHREC_NEEDS]
    installed = [name for name in FBGEMM_BUILDS.values() if _installed(name)]
    others = [name for name in installed if name != FBGEMM_BUILDS[accelerator]]
    uninstall = [[*pip, "uninstall", *yes, *here, *installed]] if others else []
    install = [*pip, "install", *here]
    return [*uninstall, [*install, *first], [*install, "--no-deps", f"torchrec=={numbers['torchrec']}"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a diagnosis, after the installation if requested; exit with 1 if there are problems."""
    parser = argparse.ArgumentParser("cove doctor", description=__doc__.partition("\n")[0])
    parser.add_argument("--install", choices=tuple(FBGEMM_BUILDS), help="torch, fbgemm and torchrec")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of --install only")
    given = parser.parse_args(arguments)
    if given.install:
        for command in commands(given.install):
            print(shlex.join(command), flush=True)
            if not given.dry_run and subprocess.run(command).returncode:
                sys.exit(1)
        if given.dry_run:
            return
        importlib.invalidate_caches()
    show(examine())


def show(diagnosis: Diagnosis) -> None:
    """Print a diagnosis; exit with 1 if there are problems, else with 0."""
    for name, number in diagnosis.versions.items():
        print(f"{name:17}{number}")
    print(f"{'backend':17}{diagnosis.backend}")
    for line in diagnosis.optional:
        print(f"optional: {line}")
    for problem in diagnosis.problems:
        print(f"problem: {problem}", file=sys.stderr)
    sys.exit(1 if diagnosis.problems else 0)


if __name__ == "__main__":
    main()
