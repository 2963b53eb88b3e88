"""Cluster the items of prepared sequences by their neighbours in training: categories for data sets without any.

python launch/cluster_items.py path=data/aotm
python launch/cluster_items.py path=data/zhihu clusters=50

Writes the column "neighbourhood" of ``categories/<items>.parquet`` in the prepared folder, where reports look for
categories to compare codes with.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cove_dist.config.composition import load_settings
from data_pipeline.item_clusters import ClusterSettings, write_item_clusters
from launch.cli import run


def main(arguments: Sequence[str] | None = None) -> None:
    run("python launch/cluster_items.py", __doc__, "cluster_items", cluster_and_show, arguments)


def cluster_and_show(overrides: Sequence[str]) -> None:
    path, sizes = write_item_clusters(load_settings(ClusterSettings, "cluster_items", overrides))
    table = Table("clusters", "items", "smallest", "median", "largest")
    table.add_row(*(f"{n:,}" for n in (len(sizes), sum(sizes), sizes[0], sizes[len(sizes) // 2], sizes[-1])))
    console = Console()
    console.print(table)
    console.print(f"categories: {path}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
