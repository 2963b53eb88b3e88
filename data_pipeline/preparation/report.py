"""``report.json``: what was read, what was dropped and why, and the counts of the paper's Table 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data_pipeline.errors import DataError
from data_pipeline.json_files import write_json

_TIES = {
    "groups": "groups of one user and time, or request",
    "rows": "rows in these groups",
    "users_of_one_group": "users with one group only",
    "cut_groups": "groups divided between splits",
}


@dataclass(frozen=True)
class Report:
    """The counts of one prepared data set.

    Attributes:
        name: Name of the data set.
        source: Origin of the raw rows.
        seed: Seed of preparation.
        split: The rule by which rows were split.
        rows_read: Raw rows, including the dropped ones.
        rows_dropped: Rows left out, by reason.
        duplicate_pairs: Rows beyond the first of the same user and item. They are kept. None where not counted.
        rows: Rows of every split.
        users: Users or, of playlists, their owners where they are known.
        items: Items of all splits.
        interactions: Rows with label 1 or, where rows are sequences, their entries; None where not counted.
        samples: Rows of all splits.
        density: Distinct user-item pairs / (users * items), which are the paper's samples / (users * items) where no
            pair is repeated; of sequences, distinct items of a row / (rows * items). None where not counted.
        published: Counts that the publisher states, by name.
        sequences: Rows of all splits where rows are sequences, else 0. Rows read and dropped then count entries.
        validation: Origin of the validation rows: "split" (data.split), "given" (by the data set), "none", or
            the rule by which they were taken from the training rows of a given split.
        ties: Groups of rows that share user and time, or a request (see `data_pipeline.preparation.ties`).
        lists_cut: Rows whose list was cut to its last entries, by column of lists.
        rare: Of every column with a least count: the count, `ids` of training below it, and their `rows`; with hash
            buckets also their number, those `used`, and `collisions`: rare ids that share a bucket with another one.
        kept: Ids of data.keep_ids that are in no training row, by id table; only tables that have some.
        warnings: Messages about what is probably a mistake in the data.
    """

    name: str
    source: str
    seed: int
    split: str
    rows_read: int
    rows_dropped: dict[str, int]
    duplicate_pairs: int | None
    rows: dict[str, int]
    users: int
    items: int
    interactions: int | None
    samples: int
    density: float | None
    published: dict[str, int] = field(default_factory=dict)
    sequences: int = 0
    validation: str = "split"
    ties: dict[str, int] = field(default_factory=dict)
    lists_cut: dict[str, int] = field(default_factory=dict)
    rare: dict[str, dict[str, int]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write ``folder/report.json``."""
        write_json(folder / "report.json", asdict(self))

    @classmethod
    def load(cls, folder: Path | str) -> Report:
        """Read ``folder/report.json``.

        Raises:
            DataError: The file is missing or is not a report.
        """
        path = Path(folder) / "report.json"
        try:
            return TypeAdapter(cls).validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: not a report: {error}. Prepare the data again") from error

    def differences(self) -> list[str]:
        """Describe the counts that differ from the published ones."""
        return [
            f"{getattr(self, name):,} {name} instead of {count:,}"
            for name, count in self.published.items()
            if getattr(self, name) != count
        ]

    def summary(self) -> dict[str, str]:
        """Return labels and values to print, in order."""
        rows = "sequences" if self.sequences else "rows"
        table = {"source": self.source, "rows read": f"{self.rows_read:,}"}
        table |= {f"dropped: {reason}": f"{count:,}" for reason, count in self.rows_dropped.items()}
        table |= {f"{name} {rows}": f"{count:,}" for name, count in self.rows.items()}
        table |= {_TIES.get(name, name): f"{count:,}" for name, count in self.ties.items()}
        table |= {f"lists cut: {name}": f"{count:,}" for name, count in self.lists_cut.items()}
        for name, counts in self.rare.items():
            shown = [f"{value:,} {key}" for key, value in counts.items() if key != "min_count"]
            table[f"{name} below {counts['min_count']:,} rows"] = ", ".join(shown)
        table |= {f"kept ids: {name}": f"{count:,}" for name, count in self.kept.items()}
        if self.validation != "split":
            table["validation"] = self.validation
        if self.sequences:
            return table | {
                "sequences": self._count("sequences"),
                "items": self._count("items"),
                "interactions": self._count("interactions"),
                "users": self._count("users"),
                "density": _share(self.density),
                "repeats within sequences (kept)": _number(self.duplicate_pairs),
            }
        return table | {
            "users": self._count("users"),
            "items": self._count("items"),
            "interactions (label 1)": self._count("interactions"),
            "samples": self._count("samples"),
            "density": _share(self.density),
            "repeated user-item pairs (kept)": _number(self.duplicate_pairs),
        }

    def _count(self, name: str) -> str:
        count, published = getattr(self, name), self.published.get(name)
        if published is None:
            return _number(count)
        return f"{count:,}, as published" if count == published else f"{count:,}; published: {published:,}"


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"


def _share(share: float | None) -> str:
    return "not counted" if share is None else f"{share:.4%}"
