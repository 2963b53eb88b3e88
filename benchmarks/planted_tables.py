"""The tables of `planted.py`: scores of every contestant, and what each setting changes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from scipy import stats

Record = dict[str, Any]
ENTITIES = ("user", "item")
WIDTH = 120  # of the tables, at least
CONFIDENCE = 0.95
UNTRAINED = ("random", "hidden")


class Contestant(NamedTuple):
    """A partition of the ids, by whom it was made, in runs of which setting."""

    label: str
    setting: str
    who: str


def contestants(records: Sequence[Record], base: str, default: str) -> list[Contestant]:
    settings = list(dict.fromkeys(record["setting"] for record in records))
    quantized = {record["setting"] for record in records if "codes" in record["scores"]}
    listed = [
        Contestant("random codes", base, "random"),
        Contestant("k-means, true hidden vectors", base, "hidden"),
        Contestant(f"k-means, {base}'s embeddings", base, "kmeans"),
        Contestant(default, default, "codes"),
        Contestant(f"k-means, {default}'s embeddings", default, "kmeans"),
        *(
            Contestant(s, s, "codes") if s in quantized else Contestant(f"k-means, {s}'s embeddings", s, "kmeans")
            for s in settings
            if s not in (base, default)
        ),
    ]
    return [one for one in listed if one.setting in settings]


def show(records: Sequence[Record], base: str, default: str) -> None:
    console = Console(width=max(WIDTH, Console().width))
    listed = contestants(records, base, default)
    for entity in ENTITIES:
        console.print(score_table(records, listed, entity))
    by_setting = {one.setting for one in listed}
    if default in by_setting and len(by_setting) > 1:
        console.print(difference_table(records, listed, default))


def score_table(records: Sequence[Record], listed: Iterable[Contestant], entity: str) -> Table:
    levels = range(len(records[0]["data"]["tree"]))
    title = f"{entity.capitalize()} codes and planted categories {records[0]['data']['tree']}"
    table = Table(title=title, caption="mean ± standard deviation over seeds; levels from fine to coarse")
    table.add_column("", no_wrap=True)
    for heading in (*(f"AMI {level + 1}" for level in levels), "perplexities", "test AUC"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in listed:
        runs = [record for record in records if record["setting"] == one.setting]
        scores = [record["scores"][one.who][entity] for record in runs]
        shared = [spread([s["ami"][level] for s in scores], 3) for level in levels]
        used = [f"{statistics.mean(s['perplexity'][level] for s in scores):.1f}" for level in levels]
        auc = "" if one.who in UNTRAINED else spread([record["auc"] for record in runs], 4)
        table.add_row(one.label, *shared, " ".join(used), auc)
    return table


def difference_table(records: Sequence[Record], listed: Iterable[Contestant], default: str) -> Table:
    """Build the table of each contestant minus the default, over the seeds that both have."""
    title = f"Less {default} of the same seed: mutual information, mean of users and items; AUC"
    caption = (
        f"mean ± standard deviation of the differences; + or -: {CONFIDENCE:.0%} of Student's interval lies on one side"
        " of 0 (of many such tests, one in twenty passes by chance)"
    )
    table = Table(title=title, caption=caption)
    table.add_column("", no_wrap=True)
    levels = range(len(records[0]["data"]["tree"]))
    for heading in (*(f"AMI {level + 1}" for level in levels), "AUC", "seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in listed:
        if one.who in UNTRAINED or (one.setting, one.who) == (default, "codes"):
            continue
        ami = [differences(records, one, default, partial(mean_ami, level=level)) for level in levels]
        auc = differences(records, one, default, lambda r, who: r["auc"])
        cells = [f"{spread(d, 3, sign='+')} {verdict(d)}" for d in ami]
        same = one.setting == default
        table.add_row(one.label, *cells, "" if same else f"{spread(auc, 4, sign='+')} {verdict(auc)}", str(len(auc)))
    return table


def mean_ami(record: Record, who: str, level: int) -> float:
    return statistics.mean(record["scores"][who][entity]["ami"][level] for entity in ENTITIES)


def differences(
    records: Sequence[Record], one: Contestant, default: str, figure: Callable[[Record, str], float]
) -> list[float]:
    """Return a contestant's values minus those of the default, by seed."""
    reference = {r["seed"]: figure(r, "codes") for r in records if r["setting"] == default}
    own = {r["seed"]: figure(r, one.who) for r in records if r["setting"] == one.setting}
    return [own[seed] - reference[seed] for seed in own if seed in reference]


def verdict(values: Sequence[float]) -> str:
    """Return the sign of the mean if Student's interval excludes 0, else a blank."""
    if len(values) < 2:
        return " "
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.mean(values)
    return " " if abs(mean) <= reach else "+" if mean > 0 else "-"


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
