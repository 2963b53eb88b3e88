"""Cluster the items of prepared sequences by their neighbors in training: categories for data sets without any.

cove cluster_items path=data/aotm
cove cluster_items path=data/zhihu clusters=50

Writes the column "neighbourhood" of ``categories/<items>.parquet`` in the prepared folder, where reports look for
categories to compare codes with. Do it before training: the folder counts as other data afterwards, and runs that were
trained on it before refuse it. To keep such runs, cluster a copy of the folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cove_dist.config.composition import load_settings
from data_pipeline.item_clusters import ClusterSettings, write_item_clusters


def run(arguments: Sequence[str]) -> None:
    path, sizes = write_item_clusters(load_settings(ClusterSettings, "cluster_items", arguments))
    table = Table("clusters", "items", "smallest", "median", "largest")
    table.add_row(*(f"{n:,}" for n in (len(sizes), sum(sizes), sizes[0], sizes[len(sizes) // 2], sizes[-1])))
    console = Console()
    console.print(table)
    console.print(f"categories: {path}", soft_wrap=True, markup=False, highlight=False)
    console.print("Runs that were trained on this folder before refuse it now.", soft_wrap=True)
