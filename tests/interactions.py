"""Small implicit feedback with attributes, prepared as Toys is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data_pipeline.datasets.toys import Toys
from data_pipeline.preparation.prepare import prepare

USERS, ITEMS, CANDIDATES = 61, 83, 20
SMALL_RUN = (
    "data=toys",
    "trainer=cf",
    "embeddings.dim=8",
    "trainer.device=cpu",
    "trainer.batch_size=120",
    "trainer.evaluation_batch_size=28",
    "trainer.epochs=2",
    "trainer.log_every=2",
    "evaluation.rank_validation=[sampled,full]",
    "evaluation.ndcg_at=[1,5,10]",
    "evaluation.hit_rate_at=[3,10]",
)


def write_raw(folder: Path) -> Path:
    """Lines of users with 3 to 20 items, those of a low number more often; one to three attributes an item."""
    rng = np.random.default_rng(5)
    folder.mkdir(exist_ok=True, parents=True)
    weights = 1 / np.arange(5, ITEMS + 5)
    lines = [
        (100 + user, 1000 + rng.choice(ITEMS, size=rng.integers(3, 20), replace=False, p=weights / weights.sum()))
        for user in range(USERS)
    ]
    text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in lines)
    (folder / "Toys_and_Games.txt").write_text(text)
    attributes = {str(1000 + i): rng.integers(1, 12, size=rng.integers(1, 4)).tolist() for i in range(ITEMS)}
    (folder / "Toys_and_Games_item2attributes.json").write_text(json.dumps(attributes))
    return folder


def prepare_small(folder: Path) -> Path:
    prepare(Toys(source=str(write_raw(folder / "raw")), candidates=CANDIDATES), folder / "data", name="toys")
    return folder / "data"
