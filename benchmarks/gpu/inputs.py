"""Data of the GPU benchmark, made at its start: one prepared folder per task, and the overrides of small runs."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.datasets.encoded import Encoded
from data_pipeline.datasets.playlists import Playlists
from data_pipeline.datasets.toys import Toys
from data_pipeline.preparation.prepare import prepare

CATEGORICAL, DENSE = tuple(f"c{i}" for i in range(1, 25)), tuple(f"d{i}" for i in range(1, 14))
MODELS = {
    "ctr": ("deepfm", "dcn", "fibinet", "finalmlp", "dlrm"),
    "histories": ("din",),  # clicks with a list of the user's earlier items
    "cf": ("bprmf", "neumf", "cfkg", "lightgcn"),
    "sequential": ("sasrec", "bert4rec", "gru4rec", "caser", "car", "fans"),
}
TRAINED = (  # task, model, whether with COVE
    ("ctr", "deepfm", False),
    ("ctr", "deepfm", True),
    ("cf", "bprmf", True),
    ("cf", "lightgcn", True),
    ("sequential", "sasrec", True),
)
WITHOUT_DROPOUT = ("bprmf", "cfkg", "lightgcn")
SMALL_HEAD = {"finalmlp": "[20,20]"}  # a multiple of its 10 heads


def make(kind: str, work: Path, tiny: bool) -> None:
    """Make the data of a task; the folder appears when it is complete, a file with the reason if that fails."""
    folder = work / "data" / kind
    if (folder / "schema.json").is_file():
        return
    try:
        {"ctr": _click_logs, "histories": _histories, "cf": _interactions, "sequential": _playlists}[kind](work, tiny)
    except BaseException as error:
        (work / f"{kind}.failed").write_text(repr(error))
        raise


def wait_for(kind: str, work: Path) -> Path:
    """Return the folder of a task's data, once it is there.

    Raises:
        RuntimeError: Making it failed.
    """
    folder = work / "data" / kind
    while not (folder / "schema.json").is_file():
        if (failed := work / f"{kind}.failed").is_file():
            raise RuntimeError(f"data of {kind}: {failed.read_text()}")
        time.sleep(0.05)
    return folder


def overrides(kind: str, model: str, work: Path, tiny: bool, cove: bool = True) -> list[str]:
    """Return the overrides of a run on the data of its task; without a device and an output folder."""
    given = {"ctr": "data=encoded", "histories": "data=encoded", "cf": "data=toys", "sequential": "data=aotm"}[kind]
    levels = (
        {"ctr": "[500,10]", "histories": "[500,10]", "cf": "[100,10]", "sequential": "[500,10]"}[kind]
        if not tiny
        else "[12,4]"
    )
    chosen = [given, f"data.path={wait_for(kind, work)}", f"model={model}"]
    if cove:
        chosen += ["quantizer=cove_items" if kind == "sequential" else "quantizer=cove"]
        chosen += [f"quantizer.item_levels={levels}"]
        chosen += [f"quantizer.user_levels={levels}"] if kind != "sequential" else []
    if tiny:
        chosen += ["embeddings.dim=8", "trainer.batch_size=64", "trainer.evaluation_batch_size=64"]
        chosen += [f"model.hidden_units={SMALL_HEAD.get(model, '[16]')}"] if kind in ("ctr", "histories") else []
        chosen += ["model.bottom_units=[16]"] if model == "dlrm" else []
    return [*chosen, "trainer.log_every=1000000"]


def without_dropout(model: str) -> list[str]:
    return [] if model in WITHOUT_DROPOUT else ["model.dropout=0.0"]


def zipf(random: np.random.Generator, size: int, ids: int) -> np.ndarray:
    """Draw ids below ``ids`` with odds in inverse proportion to the id plus 1."""
    return np.minimum((ids + 1.0) ** random.random(size) - 1, ids - 1).astype(np.int64)


def _click_logs(work: Path, tiny: bool) -> None:
    """26 id columns by Zipf's law and 13 dense ones, as in Criteo's logs; labels follow a few of them."""
    rows, folder, random = {"train": 400 if tiny else 1 << 19}, work / "ctr.partial", np.random.default_rng(0)
    rows |= {"validation": rows["train"] // 8, "test": rows["train"] // 8}
    sizes = {"user_id": 50 if tiny else 100_000, "item_id": 40 if tiny else 50_000}
    sizes |= {name: 20 if tiny else 10 ** (2 + i % 4) for i, name in enumerate(CATEGORICAL)}
    effects = {name: random.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in rows.items():
        columns = {name: zipf(random, count, size) for name, size in sizes.items()}
        columns["user_id"].sort()  # validation and test are sorted by user
        columns |= {name: random.standard_normal(count).astype(np.float32) for name in DENSE}
        affinity = sum(effects[name][columns[name]] for name in sizes) / len(sizes) ** 0.5 + columns["d1"]
        columns["label"] = (random.random(count) < 1 / (1 + np.exp(-2 * affinity))).astype(np.int8)
        (folder / split).mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / split / "part.parquet", row_group_size=1 << 16)
    prepare(Encoded(source=str(folder), categorical=CATEGORICAL, dense=DENSE), folder, name="click logs")
    (work / "data").mkdir(exist_ok=True)
    os.replace(folder, work / "data" / "ctr")


def _histories(work: Path, tiny: bool) -> None:
    """Clicks with the items that the user clicked before, at most 20; users click items that are near these."""
    count, users, items = (400, 50, 40) if tiny else (1 << 17, 10_000, 20_000)
    folder, random = work / "histories.partial", np.random.default_rng(3)
    for split, rows in (("train", count), ("validation", count // 8), ("test", count // 8)):
        user, centre = np.sort(zipf(random, rows, users)), random.integers(items, size=rows)
        before = [(near + random.integers(20, size=random.integers(21))) % items for near in centre]
        label = random.random(rows) < 0.5
        item = np.where(label, centre + random.integers(20, size=rows), random.integers(items, size=rows)) % items
        columns = {"user_id": user, "item_id": item, "before": before, "label": label.astype(np.int8)}
        (folder / split).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / split / "part.parquet")
    lists = {"lists": ("before",), "list_vocabularies": {"before": "item_id"}}
    prepare(Encoded(source=str(folder), **lists), folder, name="histories")
    (work / "data").mkdir(exist_ok=True)
    os.replace(folder, work / "data" / "histories")


def _interactions(work: Path, tiny: bool) -> None:
    """As many users and items as Amazon Toys, with about as many interactions."""
    users, items, longest = (60, 90, 16) if tiny else (19_412, 11_924, 13)
    random, raw = np.random.default_rng(1), work / "cf.raw"
    raw.mkdir(parents=True, exist_ok=True)
    lines = []
    for user in range(users):
        start, drawn = random.integers(items), zipf(random, random.integers(5, longest), items)
        chosen = np.unique((drawn + start // 50 * 50 * (user % 2)) % items)  # half of them have a region
        while len(chosen) < 5:
            chosen = np.unique(np.append(chosen, random.integers(items)))
        lines.append(f"{user + 1} {' '.join(str(1000 + item) for item in random.permutation(chosen))}\n")
    (raw / "Toys_and_Games.txt").write_text("".join(lines))
    kinds = {str(1000 + item): random.integers(1, 40, size=random.integers(1, 4)).tolist() for item in range(items)}
    (raw / "Toys_and_Games_item2attributes.json").write_text(json.dumps(kinds))
    prepare(Toys(source=str(raw), candidates=10 if tiny else 99), work / "data" / "cf", name="interactions")


def _playlists(work: Path, tiny: bool) -> None:
    """Playlists of neighboring items, in the format of Art of the Mix's release."""
    count, items = (200, 60) if tiny else (20_000, 10_000)
    random, raw = np.random.default_rng(2), work / "sequential.raw"
    raw.mkdir(parents=True, exist_ok=True)
    lengths = random.integers(6, 16 if tiny else 30, size=count)
    centres = zipf(random, count, items)
    lines = []
    for number, (length, centre) in enumerate(zip(lengths, centres, strict=True), start=1):
        near = (centre + random.normal(0, 4 if tiny else 40, size=length)).astype(np.int64) % items + 1
        lines += [f"{number} {item}\n" for item in near]
    with zipfile.ZipFile(raw / "AotM.txt.zip", "w") as archive:
        archive.writestr("AotM.txt", "".join(lines))
    creators = {number: number % 97 for number in range(1, count + 1)}
    (raw / "AotM_creator_list.dict").write_bytes(pickle.dumps(creators, protocol=0))
    rules = {"min_length": 5, "max_length": 32, "min_occurrences": 5}
    prepare(Playlists(source=str(raw), file="AotM", **rules), work / "data" / "sequential", name="playlists")
