"""Every command of the README and of ``docs/``, and every step of ``make quickstart``, on small data."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cove_dist
from tests.end_to_end.programs import ROOT
from tests.interactions import CANDIDATES
from tests.interactions import write_raw as write_interactions
from tests.unit.data.playlist_files import raw_playlists, write_release
from tests.warm import executable

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
    "experiment": (f"common={json.dumps(GRID_COMMON)}", "seeds=[0,1]", *OTHER_MODELS, "paper={source:null}"),
}
PREPARED_SMALL = {"toys": (f"candidates={CANDIDATES}", "core=2"), "aotm": ("min_length=5", "max_length=24")}


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of all documents but those that run tests; those of training before those that need its run."""
    text = "\n".join(block for document in DOCUMENTS for block in blocks("bash", document)).replace("\\\n", " ")
    listed = [shlex.split(line) for line in text.splitlines() if line.strip() and " pytest " not in line]
    order = ("make", "prepare", "train")
    return sorted(listed, key=lambda c: next((i for i, name in enumerate(order) if name in c), len(order)))


def quickstart() -> list[list[str]]:
    """What ``make quickstart`` would run after the set-up."""
    make = ["make", "--dry-run", "--old-file=setup", "quickstart"]
    listed = subprocess.run(make, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    lines = [line.split("||")[-1].strip() for line in listed.splitlines() if "launch/" in line]
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def workplace(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(prepared, folder / "data" / "movielens_100k")
    (folder / "logs").mkdir()
    rows = range(2000)
    log = {
        "uid": [i % 40 for i in rows],
        "iid": [i * i % 37 for i in rows],
        "clicked": [i % 3 % 2 for i in rows],
        "ts": list(rows),
        "device": [f"d{i % 3}" for i in rows],
        "country": [f"c{i % 5}" for i in rows],
        "price": [float(i % 11) for i in rows],
        "stars": [i % 5 + 1 for i in rows],
        "liked": [i % 7 % 2 for i in rows],
        "importance": [i % 4 / 2 for i in rows],
    }
    pq.write_table(pa.table(log), folder / "logs" / "day1.parquet")
    write_interactions(folder / "raw" / "toys")
    write_release(folder / "raw" / "aotm", raw_playlists())
    lines = ["uid,iid,stars", *(f"{log['uid'][i]},{log['iid'][i]},{log['stars'][i]}" for i in rows)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    shop = ["uid,iid,clicked,ts,session,tags,clicked_before"]
    for i in rows:
        tags, before = "|".join(["red", "new", "old"][: i % 4]), "|".join(f"i{j % 37}" for j in range(i, i + i % 5))
        shop.append(f"u{i // 5 % 40},i{log['iid'][i]},{log['clicked'][i]},{i // 5},s{i // 5},{tags},{before}")
    (folder / "shop.csv").write_text("\n".join(shop) + "\n")
    (folder / "new_users.csv").write_text("user_id,item_id\nanna,1001\nanna,1004\nbert,1002\n")
    ratings = [f"{log['uid'][i] + 1}\t{log['iid'][i] + 1}\t{log['stars'][i]}\t{i}" for i in rows]
    (folder / "u.data").write_text("\n".join(ratings) + "\n")
    return folder


def started(command: list[str]) -> tuple[str, str]:
    """The runner and the program of a command."""
    scripts = [Path(word).stem for word in command if word.startswith("launch/")]
    return Path(command[0]).name, scripts[0] if scripts else next(word for word in command if word in FEWER)


def reduced(command: list[str], workplace: Path, python: str) -> list[str]:
    """The same command by this Python, with fewer rows and steps."""
    rest, (runner, program) = command[1:], started(command)
    rest = [str(ROOT / word) if word.startswith("launch/") else word for word in rest]
    rest = ["-m", "cove_dist", *rest] if runner == "cove" else rest
    if program == "prepare" and "data=movielens_100k" in rest:
        rest += [f"source={workplace}/u.data", "output=data/from_u_data", "overwrite=true"]
    rest += next(
        (PREPARED_SMALL[name] for name in PREPARED_SMALL if f"data={name}" in rest and program == "prepare"), ()
    )
    fewer = {"rows": "3000", "users": "60", "items": "80"} if program == "prepare" else {"trials": "1"}
    small = [f"{key}={fewer[key]}" if (key := word.split("=")[0]) in fewer else word for word in rest]
    head = [python, "-m", "torch.distributed.run", "--standalone"] if runner == "torchrun" else [python]
    others = ("experiment=toys", "experiment=aotm", "model=sasrec", "warm_start=")
    ctr = not any(word.startswith(others) for word in rest)
    head_units = ["model.hidden_units=[16]"] if program == "train" and ctr else []
    return [*head, *small, *FEWER[program], *head_units]


def is_make(command: list[str]) -> bool:
    return command[0] == "make"


def test_the_two_commands_are_make_targets() -> None:
    targets = [command[1] for command in commands() if is_make(command)]
    assert targets == ["quickstart", "test"]
    for target in (*targets, "seeds"):
        subprocess.run(["make", "--dry-run", target], check=True, capture_output=True, cwd=ROOT)


def test_commands_of_the_quickstart_and_the_readme(workplace: Path) -> None:
    ran = [*quickstart(), *(command for command in commands() if not is_make(command))]
    assert len(ran) >= 28
    first = {started(command): i for i, command in reversed([*enumerate(ran)])}
    for i, command in enumerate(ran):
        python = sys.executable if first[started(command)] == i else executable()  # each once by an ordinary start
        done = subprocess.run(
            reduced(command, workplace, python),
            cwd=workplace,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    for run in (
        "movielens_deepfm",
        "movielens_cove_deepfm",
        "movielens_cove_dlrm",
        "mine",
        "four",
        "sharded",
        "aotm_sasrec",
        "toys_sasrec",
        "shop",
    ):
        assert (workplace / "runs" / run / "config.yaml").is_file()
    assert (workplace / "results" / "table4_movielens" / "results.parquet").is_file()
    assert (workplace / "runs" / "movielens_cove_dlrm" / "report" / "report.html").is_file()
    assert list((workplace / "runs" / "toys_cove_bprmf" / "recommendations").glob("*.parquet"))
    for document in ("warm_start.md", "data.md"):
        [block] = blocks("python", ROOT / "docs" / document)
        done = subprocess.run([executable(), "-c", block], cwd=workplace, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def test_the_examples_of_python(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, in order: those of the documents on Python load the run of the README's."""
    monkeypatch.chdir(workplace)
    small = {"embeddings.dim": 8, "trainer.max_steps": 2, "trainer.device": "cpu", "model.hidden_units": [16]}
    train = partial(cove_dist.train, settings=small)
    monkeypatch.setattr(cove_dist, "train", train, raising=False)
    for document in (ROOT / "README.md", ROOT / "docs" / "python.md"):
        [block] = blocks("python", document)
        exec(block.replace("data/mine", "data/newcomer").replace("runs/mine", "runs/newcomer"), {})
    assert (workplace / "runs" / "newcomer" / "metrics_test_best.json").is_file()


def test_the_example_of_the_standalone_quantizer() -> None:
    """In a process of its own, in which nothing imports TorchRec."""
    alone, upkeep = blocks("python", ROOT / "docs" / "codebooks.md")
    script = f"""
import sys, torch
embeddings = torch.randn(7, 64, requires_grad=True)
{alone}
assert out.codes.shape == (7, 2)
optimizer = torch.optim.Adam(quantizer.parameters())
quantizer(embeddings).loss.backward()
optimizer.step()
{upkeep}
assert "torchrec" not in sys.modules and "fbgemm_gpu" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "results" / "README.md", ROOT / "CONTRIBUTING.md"], ids=str)
def test_files_and_headings_that_are_linked_to_exist(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings], anchor
