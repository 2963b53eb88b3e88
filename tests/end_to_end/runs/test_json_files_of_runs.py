"""Every JSON file that preparation, training, evaluation and export leave is JSON, undefined metrics included."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from cove_dist.inference.codes import export_codes
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.inference.popularity import evaluate_popularity
from cove_dist.training.program import train
from tests import configurations, interactions
from tests.component.sequential import runs as lists

ROOT = Path(__file__).parents[3]


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def json_values(folder: Path) -> dict[str, list]:
    """The values of all files of JSON, and of JSON lines, parsed strictly."""
    files = [path for path in folder.rglob("*.json*") if path.is_file()]
    texts = {str(path.relative_to(folder)): path.read_text() for path in files}
    return {
        name: [json.loads(part, parse_constant=refuse) for part in (text.splitlines() if ".jsonl" in name else [text])]
        for name, text in texts.items()
    }


def undefined(values: object) -> list[str]:
    """Names of what is null, at any depth."""
    if isinstance(values, list):
        return [name for value in values for name in undefined(value)]
    pairs = values.items() if isinstance(values, dict) else ()
    return [name for name, value in pairs if value is None] + [n for _, value in pairs for n in undefined(value)]


def run_through(overrides: Sequence[str], run: Path) -> dict[str, list]:
    train([*overrides, f"output={run}"])
    evaluate_run([f"run={run}", "device=cpu"])
    export_codes([f"run={run}", "device=cpu"])
    return json_values(run)


def test_click_through_rate(prepared: Path, tmp_path: Path) -> None:
    """No row is of an item that training never saw, so that metrics of the group `never` are undefined."""
    overrides = [*configurations.small_run(prepared, "unused", *configurations.COVE), "trainer.max_steps=4"]
    values = run_through(overrides, tmp_path / "run")
    assert {"log.jsonl", "summary.json", "codes/codes.json"} <= set(values)
    assert any(name.endswith("meta.json") for name in values)
    [metrics] = [value for name, value in values.items() if name.startswith("metrics")]
    assert "auc/item_never" in undefined(metrics)
    assert set(json_values(prepared)) == {"schema.json", "report.json"}


def test_collaborative_filtering(tmp_path: Path) -> None:
    data = interactions.prepare_small(tmp_path / "prepared")
    overrides = [*interactions.SMALL_RUN, f"data.path={data}", "model=bprmf", *configurations.COVE]
    values = run_through([*overrides, "trainer.max_steps=4"], tmp_path / "run")
    [metrics] = [value for name, value in values.items() if name.startswith("metrics")]
    assert "ndcg@1/user_never" in undefined(metrics)
    assert json_values(data)


def test_sequential(prepared_lists: Path, tmp_path: Path) -> None:
    quantizer = ["quantizer=cove_items", "quantizer.item_levels=[12,4]", "trainer.max_steps=4"]
    values = run_through(lists.small_run(prepared_lists, "Recurrent", "unused", *quantizer), tmp_path / "run")
    assert json_values(prepared_lists)
    assert values["log.jsonl"]
    evaluate_popularity(["data=aotm", f"data.path={prepared_lists}", f"output={tmp_path / 'popular'}"])
    assert json_values(tmp_path / "popular")["summary.json"]


def test_files_are_written_by_the_one_writer() -> None:
    """Nothing in the package writes the text of `json.dumps`, which may hold NaN."""
    sources = [path for folder in ("cove_dist", "data_pipeline") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    written = re.compile(r"write(_text)?\(\s*json\.dump|json\.dump\(")
    assert [str(path) for path in sources if written.search(path.read_text())] == []
