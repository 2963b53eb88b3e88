"""The commands of the README and of ``docs/``, and every step of ``make quickstart``, on small data.

A command belongs to the group of the data that it needs. A group is one file of tests, and has a folder, so that the
processes of a test run share the groups.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.end_to_end.programs import ROOT
from tests.fork_server import executable
from tests.interactions import CANDIDATES

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SMALL_TRAINING = ("embeddings.dim=8", "trainer.batch_size=120", "trainer.max_steps=2", "trainer.device=cpu")
GRID_COMMON = ("data=movielens_100k", "model.hidden_units=[16]", *SMALL_TRAINING)
OTHER_MODELS = ("~models.dcn", "~models.fibinet", "~models.finalmlp")
FEWER = {
    "prepare": (),
    "plan": (),
    "train": SMALL_TRAINING,
    "evaluate": ("device=cpu",),
    "compare": (),
    "export": ("device=cpu",),
    "predict": ("device=cpu",),
    "report": (),
    "semantic_ids": (),
    "recommend": ("device=cpu",),
    "popularity": (),
    "tune": (f"common={json.dumps(GRID_COMMON)}", *OTHER_MODELS),
    "experiment": (f"common={json.dumps(GRID_COMMON)}", "seeds=[0,1]", *OTHER_MODELS, "paper=null"),
}
PREPARED_SMALL = {"toys": (f"candidates={CANDIDATES}", "core=2"), "aotm": ("min_length=5", "max_length=24")}
STARTING_OTHERS = ("tune", "experiment")
WITH_WARM_PROGRAMS = (  # an ordinary start, except of the programs that it starts itself
    "import runpy, sys; sys.executable = sys.argv.pop(1); runpy.run_module('cove_dist', {}, '__main__', True)"
)


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.DOTALL)


@cache
def commands() -> tuple[tuple[str, ...], ...]:
    """The commands of the quickstart and of all documents but those that run tests.

    Those of training come before those that need its run.
    """
    text = "\n".join(block for document in DOCUMENTS for block in blocks("bash", document)).replace("\\\n", " ")
    listed = [tuple(shlex.split(line)) for line in text.splitlines() if line.strip() and " pytest " not in line]
    order = ("prepare", "train")
    ordered = sorted(listed, key=lambda c: next((i for i, name in enumerate(order) if name in c), len(order)))
    return (*quickstart(), *(command for command in ordered if command[0] != "make"))


def quickstart() -> list[tuple[str, ...]]:
    """What ``make quickstart`` would run after the set-up."""
    make = ["make", "--dry-run", "--old-file=setup", "quickstart"]
    listed = subprocess.run(make, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    lines = [line.split("||")[-1].strip() for line in listed.splitlines() if "launch/" in line]
    return [tuple(shlex.split(line)) for line in lines]


def group_of(command: tuple[str, ...]) -> str:
    """The group of a command, by the data or the run that it names."""
    text = " ".join(command)
    if started(command)[1] in STARTING_OTHERS or "data/small" in text:
        return "grids"
    if "movielens" in text:
        return "movielens"
    return "public" if re.search("toys|aotm|runs/(today|tomorrow)", text) else "own"


def started(command: tuple[str, ...]) -> tuple[str, str]:
    """The runner and the program of a command."""
    scripts = [Path(word).stem for word in command if word.startswith("launch/")]
    return Path(command[0]).name, scripts[0] if scripts else next(word for word in command if word in FEWER)


@cache
def ordinary() -> set[tuple[str, ...]]:
    """One command of every program and one of every runner, which are started in the ordinary way."""
    chosen, seen = set(), set[str]()
    for command in sorted(commands(), key=lambda each: started(each)[0] == "torchrun"):  # several processes: only one
        if not seen.issuperset(started(command)):
            chosen.add(command)
            seen.update(started(command))
    return chosen


def reduced(command: tuple[str, ...], workplace: Path) -> list[str]:
    """The same command by this Python, with fewer rows and steps."""
    program = started(command)[1]
    rest = [str(ROOT / word) if word.startswith(("launch/", "examples/")) else word for word in command[1:]]
    if program == "prepare" and "data=movielens_100k" in rest:
        rest += [f"source={workplace}/u.data", "output=data/from_u_data", "overwrite=true"]
    smaller = next((PREPARED_SMALL[name] for name in PREPARED_SMALL if f"data={name}" in rest), ())
    sequences = any(word.startswith("sequences=") for word in rest)  # which have no candidates
    if program == "prepare":
        rest += [word for word in smaller if not (sequences and word.startswith("candidates="))]
    fewer = {"rows": "3000", "users": "60", "items": "80"} if program == "prepare" else {"trials": "1"}
    small = [f"{key}={fewer[key]}" if (key := word.split("=")[0]) in fewer else word for word in rest]
    others = ("experiment=toys", "experiment=aotm", "model=sasrec", "warm_start=")
    ctr = not any(word.startswith(others) for word in rest)
    head_units = ["model.hidden_units=[16]"] if program == "train" and ctr else []
    is_small = any(word.startswith("examples/") for word in command)
    return [*_head(command), *small, *(() if is_small else FEWER[program]), *head_units]


def _head(command: tuple[str, ...]) -> list[str]:
    runner, program = started(command)
    python = sys.executable if command in ordinary() else executable()
    if runner == "torchrun":
        return [python, "-m", "torch.distributed.run", "--standalone"]
    if runner == "python":
        return [python]
    if program in STARTING_OTHERS and command in ordinary():
        return [python, "-c", WITH_WARM_PROGRAMS, executable()]
    return [python, "-m", "cove_dist"]


def run_group(group: str, workplace: Path) -> int:
    """Run the commands of a group, which must succeed, in order.

    Returns:
        The number of commands.
    """
    ran = [command for command in commands() if group_of(command) == group]
    for command in ran:
        done = subprocess.run(
            reduced(command, workplace),
            cwd=workplace,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    return len(ran)


def run_block(document: Path, workplace: Path) -> None:
    """Run the only block of Python of a document."""
    [block] = blocks("python", document)
    done = subprocess.run([executable(), "-c", block], cwd=workplace, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
