"""Run folders written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from cove_dist.tasks.configuration import compose_run_config
from data_pipeline.schema import Categorical, Schema
from tests.configurations import COVE, small_run

LEVELS = {"user": (8, 3), "item": (12, 4)}  # of COVE


def write_run(folder: Path, data: Path, records: Sequence[Mapping], *overrides: str, quantized: bool = True) -> Path:
    """A run folder with a configuration and a log."""
    folder.mkdir()
    composed = compose_run_config(small_run(data, folder, *(COVE if quantized else ()), *overrides))
    OmegaConf.save(composed, folder / "config.yaml")
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def log(steps: int = 6, *, quantized: bool = True, dead: bool = True) -> list[dict]:
    """Records as training writes them: two epochs."""
    records = []
    for step in range(1, steps + 1):
        epoch = (step - 1) * 2 // steps
        figures = {"loss": 1 / step, "task": 0.9 / step}
        usage = _usage(dead) if quantized else {}
        if quantized:
            figures |= {"quantization_user": 0.06 / step, "quantization_item": 0.04 / step}
        speed = {"samples_per_second": 1000.0 + step, "resident_mb": 500.0}
        records.append({"kind": "train", "step": step, "epoch": epoch, **figures, **usage, **speed})
        if step % (steps // 2) == 0:
            if quantized and dead:
                records.append({"kind": "codebooks", "step": step, "epoch": epoch, **usage})
            metrics = {"auc": 0.6 + 0.01 * step, "logloss": 0.6, "ndcg@1": 0.5, "hr@5": 0.9, "users": 60}
            records.append({"kind": "validation", "step": step, "epoch": epoch + 1, **metrics})
    return records


def _usage(dead: bool) -> dict[str, float]:
    names = [(f"{entity}_{level}", v) for entity, sizes in LEVELS.items() for level, v in enumerate(sizes, start=1)]
    usage = {f"perplexity_{name}": v * 0.7 for name, v in names}
    return usage | ({f"dead_{name}": 0.1 for name, _ in names} if dead else {})


def write_codes(run: Path, entity: str, original_ids: Sequence, codes: Sequence[Sequence[int | None]]) -> None:
    """``codes/<entity>/`` in two parts."""
    folder = run / "codes" / entity
    folder.mkdir(parents=True, exist_ok=True)
    columns = {f"code_{i}": pa.array(level, pa.int32()) for i, level in enumerate(zip(*codes, strict=True), start=1)}
    table = pa.table({"entity": np.arange(len(codes)), "original_id": original_ids, **columns})
    half = len(table) // 2
    for number, part in enumerate((table[:half], table[half:])):
        pq.write_table(part, folder / f"part-{number:05d}.parquet")


def random_codes(count: int, levels: Sequence[int]) -> list[list[int]]:
    random = np.random.default_rng(0)
    return np.stack([random.integers(v, size=count) for v in levels], axis=1).tolist()


def write_data(folder: Path, categories: pa.Table | None = None) -> Path:
    """A prepared folder without rows: ``schema.json``, and categories of the items."""
    folder.mkdir()
    columns = (Categorical("user_id", 60, 60, role="user"), Categorical("item_id", 80, 80, role="item"))
    Schema("made", "label", columns, (), {}).save(folder)
    if categories is not None:
        (folder / "categories").mkdir()
        pq.write_table(categories, folder / "categories" / "item_id.parquet")
    return folder


class Page(HTMLParser):
    """What a page holds: its tags are balanced, else parsing fails; its references, pictures and text."""

    _VOID = ("meta", "img", "link", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
