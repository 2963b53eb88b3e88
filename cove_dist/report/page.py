"""The page: one HTML file with everything in it, which opens without a network."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from cove_dist.evaluation.frequency import GROUPS, by_entity, is_grouped
from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.report.drawing import Picture
from cove_dist.report.examples import CodeExample
from cove_dist.report.run_folder import Run
from cove_dist.runs import CONFIG_FILE

TEMPLATE, SEVERAL = "page.html.jinja", "several.html.jinja"


def render(
    run: Run,
    pictures: Sequence[Picture],
    agreement: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    examples: Sequence[CodeExample] = (),
) -> str:
    """Return the page's HTML.

    Args:
        run: Run of the heading and the tables.
        pictures: Pictures in order; their files are embedded.
        agreement: Rows of the table of codes against categories, all with the same keys.
        notes: Reasons for what is left out.
        examples: Ids of the largest codes.
    """
    return _template(TEMPLATE).render(
        run=run,
        evaluations=[(each.words, _overall(each), by_entity(each.metrics)) for each in run.evaluated],
        groups=GROUPS,
        data=run.config["data"],
        pictures=pictures,
        agreement=agreement,
        notes=notes,
        examples=examples,
        configuration=(run.folder / CONFIG_FILE).read_text(),
    )


def render_several(
    runs: Mapping[str, Run], metrics: Sequence[MetricRow], pictures: Sequence[Picture], notes: Sequence[str]
) -> str:
    """Return the HTML of the page of several runs.

    Args:
        runs: Runs by their label.
        metrics: Rows of the table of test metrics.
        pictures: Pictures in order; their files are embedded.
        notes: What a reader must know, and reasons for what is left out.
    """
    return _template(SEVERAL).render(runs=runs, metrics=metrics, pictures=pictures, notes=notes)


class MetricRow(NamedTuple):
    """A metric of several runs.

    Attributes:
        title: Display name.
        values: Values of the runs; None where it is undefined or missing.
        best: Whether each value is the best.
    """

    title: str
    values: list[float | int | None]
    best: list[bool]


def _template(name: str) -> Template:
    """Return a template of this folder with its filters."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "embedded": embedded, "start": describe_start}
    return environment.get_template(name)


def _overall(evaluated: Evaluated) -> dict[str, float | int | None]:
    return {name: value for name, value in evaluated.metrics.items() if not is_grouped(name)}


def figure(value: Any) -> str:
    """Format a number: whole ones with thousands separators, others to four digits; None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def describe_start(start: Mapping[str, Any]) -> dict[str, str]:
    """Return the provenance of one start as text by name."""
    repositories = {str(each): f"{each['commit']}{_DIRTY[each['dirty']]}" for each in start["git"].values() if each}
    return {
        "command": shlex.join(start["command"]),
        "in folder": start["folder"],
        "git": ", ".join(repositories.values()) or "no repository",
        "machine": f"{start['host']}, {start['platform']}",
        "device": f"{start['device']}, {start['world_size']} ranks with {start['threads']} threads each",
        "data": f"{start['data']['path']}, fingerprint {start['data']['fingerprint']}",
        "python": start["python"],
        "packages": ", ".join([f"cove_dist {start['cove_dist']}", *(f"{n} {v}" for n, v in start["packages"].items())]),
    }


_DIRTY = {True: " with local changes", False: "", None: " (local changes unknown)"}


def embedded(path: Path) -> str:
    """Return a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
