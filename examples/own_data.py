"""From a CSV file of one's own to recommendations.

python examples/own_data.py
"""

from __future__ import annotations

import csv
import random
import tempfile
from pathlib import Path

import pyarrow as pa

import cove_dist as cove

SMALL = {"embeddings.dim": 16, "trainer.epochs": 3, "trainer.batch_size": 512, "trainer.device": "cpu"}


def write_ratings(path: Path, users: int = 50, items: int = 40, rows: int = 3000) -> None:
    """Write ratings of users who like the items of their own parity."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["uid", "iid", "stars", "ts"])
        for second in range(rows):
            user, item = draw.randrange(users), draw.randrange(items)
            stars = draw.choice([4, 5]) if (user + item) % 2 == 0 else draw.choice([1, 2, 3])
            lines.writerow([f"u{user}", f"i{item}", stars, second])


def main(folder: Path) -> pa.Table:
    """Prepare, train and recommend in a folder."""
    write_ratings(folder / "ratings.csv")
    columns = {"user": "uid", "item": "iid", "label": None, "rating": "stars", "threshold": 4, "time": "ts"}
    data = cove.prepare(folder / "ratings.csv", folder / "data", settings=columns)
    settings = {**SMALL, "model.hidden_units": [32]}
    run = cove.train(data, model="deepfm", quantizer="cove", output=folder / "run", settings=settings)
    print({name: round(value, 4) for name, value in run.metrics["validation"].items()})
    listed = run.recommend(["u1", "u2"], k=5, history="keep")
    print(listed.to_pylist())
    return listed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
