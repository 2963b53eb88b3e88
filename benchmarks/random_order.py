"""Ranking metrics of a random order of each user's, or each request's, rows, and how many of them have unseen items.

All scores are equal; the metrics of tied scores are expected values over their orders.

python benchmarks/random_order.py --data data/mind_part --group-by request_id
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import duckdb
import torch

from cove_dist.evaluation.ranking import UserRanking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder of click-through data")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--group-by", default="user_id", choices=["user_id", "request_id"])
    parser.add_argument("--at", type=int, nargs="+", default=[5, 10], help="the k of NDCG and HR")
    arguments = parser.parse_args()
    found = measure(arguments.data, arguments.split, arguments.group_by, tuple(arguments.at))
    print(json.dumps(found, indent=2))


def measure(data: Path, split: str, group_by: str, at: tuple[int, ...] = (5, 10)) -> dict[str, float]:
    """Return the metrics of equal scores, and the shares of rows and of positives whose item training has seen."""
    rows = duckdb.sql(f"""
        SELECT {group_by} AS entity, label, item_id IN (SELECT item_id FROM '{data}/train/*.parquet') AS seen
        FROM '{data}/{split}/*.parquet'""").fetchnumpy()
    labels, groups, seen = (torch.from_numpy(rows[name]) for name in ("label", "entity", "seen"))
    ranking = UserRanking(at, at)
    ranking.update(torch.zeros(len(labels)), labels, groups)
    shares = {"seen_rows": seen.double().mean(), "seen_positives": seen[labels == 1].double().mean()}
    return {name: float(value) for name, value in (ranking.compute() | shares).items()}


if __name__ == "__main__":
    main()
