"""Amazon reviews of one category, 2014, 5-core (McAuley et al., SIGIR 2015): Toys_and_Games, Kindle_Store and others.

They are downloaded by hand from http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/. Two files::

    reviews_<category>_5.json.gz   one JSON object per line: reviewerID, asin, unixReviewTime, …
    meta_<category>.json.gz        one Python literal per line: {'asin': …, 'categories': [[…]], 'brand': …}; optional
"""

import ast
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.parquet_files import write_parquet
from data_pipeline.preparation.columns import ITEM, Columns
from data_pipeline.preparation.read import Source, ingest, json_scan
from data_pipeline.preparation.workspace import Workspace, scan_path

_FIELDS = ("reviewerID", "asin", "unixReviewTime")
_META = pa.schema([("original_id", pa.string()), ("category", pa.list_(pa.string())), ("brand", pa.string())])
_BATCH = 10_000


@dataclass(frozen=True, kw_only=True)
class AmazonReviews(Interactions):
    """Reviews as implicit feedback. Categories: category and brand of the items.

    Attributes:
        source: A file of reviews; the metadata of the category is looked for in the same folder.
    """

    source: str

    @property
    def columns(self) -> Columns:
        return Columns(user="reviewerID", item="asin", time="unixReviewTime")

    def read(self, workspace: Workspace) -> Source:
        path = Path(self.source)
        if not path.is_file():
            raise DataError(
                f"{path}: no such file. Download reviews_<category>_5.json.gz and meta_<category>.json.gz"
                " (http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/) and set data.source=FILE;"
                f" relative paths start at {Path.cwd()}"
            )
        scan = json_scan(path, _FIELDS, self.on_invalid)
        ingest(workspace, [(path, scan)], on_invalid=self.on_invalid, delimited=False)
        source = Source(self.source, text=True)
        meta = path.with_name(path.name.replace("reviews_", "meta_").replace("_5.json", ".json"))
        if meta != path and meta.is_file():
            self._read_meta(workspace, meta)
            source.categories[ITEM] = "SELECT * FROM meta"
        else:
            workspace.on_progress(f"{meta}: no such file; the items have no attributes")
        return source

    def _read_meta(self, workspace: Workspace, path: Path) -> None:
        """Create the table ``meta``: categories and brand of every item, of the first lines that have them."""
        workspace.reads(path)
        workspace.on_progress(f"reading {path}")
        scratch = workspace.scratch / "meta.parquet"
        write_parquet(pa.RecordBatchReader.from_batches(_META, _meta_batches(path)), scratch)
        workspace.query(
            "CREATE TABLE meta AS SELECT original_id, arg_min(category, file_row_number) AS category,"
            " arg_min(brand, file_row_number) AS brand"
            f" FROM read_parquet({scan_path(scratch)}, file_row_number = true) GROUP BY original_id"
        )


def _meta_batches(path: Path) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for row in _meta_rows(path):
        rows.append(row)
        if len(rows) == _BATCH:
            yield pa.RecordBatch.from_pylist(rows, _META)
            rows = []
    yield pa.RecordBatch.from_pylist(rows, _META)


def _meta_rows(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _meta_row(line, f"{path}: line {number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}. It may be truncated: download it again") from error


def _meta_row(line: str, where: str) -> dict[str, Any]:
    try:
        known = ast.literal_eval(line)  # only literals: no code in the line is run
        names = [name for path in known.get("categories", []) for name in path]
        return {
            "original_id": known["asin"],
            "category": list(dict.fromkeys(names)) or None,
            "brand": known.get("brand") or None,
        }
    except (ValueError, SyntaxError, KeyError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise DataError(
            f"{where}: not a Python literal with 'asin' and 'categories': {line[:80]!r} ({error!r}). Correct the line,"
            " or move the file away: the items then have no attributes"
        ) from error
