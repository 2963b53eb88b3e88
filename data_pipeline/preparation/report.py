"""``report.json``: what was read, dropped and why, and the figures of the paper's Table 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data_pipeline.errors import DataError
from data_pipeline.json_files import write_json


@dataclass(frozen=True)
class Report:
    """The account of one prepared data set.

    Attributes:
        rows_dropped: rows left out, by reason; ``rows_read`` counts them too.
        duplicate_pairs: rows beyond the first of the same user and item. They are kept.
        interactions: rows with label 1.
        samples: rows of all splits.
        density: samples / (users * items), as in the paper's Table 1.
        published: what the data set's source says of users, items, interactions, samples or lists, as far as it does.
        validation: where the rows for validation come from: "split" (data.split), "given" (by the data set), "none", or
            the rule by which they were taken from the training rows of a given split.
        ties: sets of rows that share user and time, or a request (see `data_pipeline.preparation.ties`).
        warnings: what is likely a mistake in the data, in words.
        lists: rows of all splits where a row is a list of items, else 0. Rows read and dropped, interactions and
            density then count entries of lists, and users are the owners of lists, where they are known.
    """

    name: str
    source: str
    seed: int
    split: str
    rows_read: int
    rows_dropped: dict[str, int]
    duplicate_pairs: int
    rows: dict[str, int]
    users: int
    items: int
    interactions: int
    samples: int
    density: float
    published: dict[str, int] = field(default_factory=dict)
    lists: int = 0
    validation: str = "split"
    ties: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        write_json(folder / "report.json", asdict(self))

    @classmethod
    def load(cls, folder: Path | str) -> Report:
        """Read ``folder/report.json``. Raises `DataError` when it is missing or not a report."""
        path = Path(folder) / "report.json"
        try:
            return TypeAdapter(cls).validate_json(path.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: not a report: {error}. Prepare the data again") from error

    def differences(self) -> list[str]:
        """The counts that are not the published ones, in words."""
        return [
            f"{getattr(self, name):,} {name} instead of {count:,}"
            for name, count in self.published.items()
            if getattr(self, name) != count
        ]

    def summary(self) -> dict[str, str]:
        """Labels and values to print, in order."""
        table = {"source": self.source, "rows read": f"{self.rows_read:,}"}
        table |= {f"dropped, {reason}": f"{count:,}" for reason, count in self.rows_dropped.items()}
        table |= {f"{name} {'lists' if self.lists else 'rows'}": f"{count:,}" for name, count in self.rows.items()}
        table |= {f"ties, {name.replace('_', ' ')}": f"{count:,}" for name, count in self.ties.items()}
        if self.validation != "split":
            table["validation"] = self.validation
        if self.lists:
            return table | {
                "lists": self._count("lists"),
                "items": self._count("items"),
                "interactions": self._count("interactions"),
                "owners": self._count("users"),
                "density": f"{self.density:.4%}",
                "repeats within lists (kept)": f"{self.duplicate_pairs:,}",
            }
        return table | {
            "users": self._count("users"),
            "items": self._count("items"),
            "interactions (label 1)": self._count("interactions"),
            "samples": self._count("samples"),
            "density": f"{self.density:.4%}",
            "repeated user-item pairs (kept)": f"{self.duplicate_pairs:,}",
        }

    def _count(self, name: str) -> str:
        count, published = getattr(self, name), self.published.get(name)
        if published is None:
            return f"{count:,}"
        return f"{count:,}, as published" if count == published else f"{count:,}; published: {published:,}"
