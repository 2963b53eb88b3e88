"""What the documents say next to their commands: targets of make, examples of Python, links."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import cove_dist
from tests.end_to_end.documents.commands import DOCUMENTS, ROOT, blocks


def test_the_two_commands_are_make_targets() -> None:
    lines = [line for document in DOCUMENTS for block in blocks("bash", document) for line in block.splitlines()]
    targets = [line.split()[1] for line in lines if line.startswith("make ")]
    assert targets == ["quickstart", "test"]
    for target in (*targets, "seeds"):
        subprocess.run(["make", "--dry-run", target], check=True, capture_output=True, cwd=ROOT)


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


def test_the_grid_of_the_documents_is_that_of_the_examples() -> None:
    [shown] = blocks("yaml", ROOT / "docs" / "experiments.md")
    assert shown == (ROOT / "examples" / "my_grid.yaml").read_text()


def test_the_example_of_the_standalone_quantizer() -> None:
    """Run in a separate process, in which nothing imports TorchRec."""
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


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *sorted((ROOT / "results").rglob("*.md")), ROOT / "CONTRIBUTING.md"], ids=str
)
def test_files_and_headings_that_are_linked_to_exist(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings], anchor
