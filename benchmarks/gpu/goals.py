"""What the measured rows say about the goals of training and of tables; those of the quantizer are in its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
COVE_SHARE, OF_BARE, GAPS, FLAT = 0.05, 0.95, 0.10, 1.15
LARGE = "65,536"  # the batch size that the goal of gaps is about


def goals(sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row for each goal whose figures are there: the value, the goal, and whether it is met."""
    rows = {name: record["rows"] for name, record in sections.items()}
    found = [*of_training(rows.get("speed_training", {})), *of_tables(rows.get("speed_tables", {}))]
    return {
        name: {
            "value": value,
            "goal": f"{'>=' if least else '<='} {goal}",
            "met": value >= goal if least else value <= goal,
        }
        for name, value, goal, least in found
    }


def of_training(rows: Rows) -> Iterator[tuple[str, float, float, bool]]:
    """Yield name, value, goal and whether it is a least value, for each head, batch size and precision."""
    for name, row in rows.items():
        head, _, rest = name.partition(", ")
        if "ms" not in row or head == "bare loop":
            continue
        if not rest.startswith("COVE") and "ms" in (cove := rows.get(f"{head}, COVE, {rest}", {})):
            yield f"{name}: COVE's share of a step", 1 - row["ms"] / cove["ms"], COVE_SHARE, False
        if "ms" in (bare := rows.get(f"bare loop, {name}", {})):
            yield f"{name}: of the bare loop's speed", bare["ms"] / row["ms"], OF_BARE, True
        if LARGE in name and "gaps" in row:
            yield f"{name}: gaps", row["gaps"], GAPS, False


def of_tables(rows: Rows) -> Iterator[tuple[str, float, float, bool]]:
    """Yield, for each optimizer, the largest table's time over that of its least bytes, over the smallest table's.

    The distinct ids of a batch, and with them the bytes, grow with the table.
    """
    by_optimizer: dict[str, list[float]] = {}
    for name, row in rows.items():
        if "x floor" in row:
            by_optimizer.setdefault(name.split(",")[0], []).append(row["x floor"])
    for optimizer, ratios in by_optimizer.items():
        if len(ratios) > 1:
            yield f"{optimizer}: x floor, largest table over smallest", ratios[-1] / ratios[0], FLAT, False
