"""The codes of a run: found, or exported when there are none or only older ones; and pictures of their sizes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from matplotlib.axes import Axes

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.from_python import override
from cove_dist.quantization import perplexity
from cove_dist.report.drawing import Picture, canvas, label, logarithmic
from cove_dist.report.run_folder import Run
from data_pipeline.errors import DataError
from data_pipeline.id_tables import combined
from data_pipeline.schema import Entity

logger = logging.getLogger(__name__)

_FEW_CODES = 60  # largest codebook whose bars are drawn separately
_WIDE_RANGE = 100  # a ratio of the largest code to the median from which a logarithmic scale reads better


@dataclass(frozen=True)
class EntityCodes:
    """The codes of the ids that training saw.

    Shapes: ``N`` ids, ``H`` levels.

    Attributes:
        entity: User or item.
        levels: ``v_1 > v_2 > … > v_H``.
        original_ids: ``[N]``.
        codes: int64 ``[N, H]``.
    """

    entity: Entity
    levels: tuple[int, ...]
    original_ids: pa.Array
    codes: np.ndarray

    def sizes(self, level: int) -> np.ndarray:
        """Count the ids of each code: int64 ``[v]``. Levels count from 1."""
        return np.bincount(self.codes[:, level - 1], minlength=self.levels[level - 1])


def load_codes(run: Run) -> list[EntityCodes]:
    """Load the codes of every quantized entity; none while the run has no checkpoint.

    Raises:
        DataError: A file does not hold codes of this run.
    """
    if not run.levels:
        return []
    newest = next(reversed(CheckpointFolder(run.folder / "checkpoints").steps()), None)
    if not _current(run, newest):
        if newest is None:
            logger.warning("%s: no exported codes and no checkpoint; leaving out the pictures of codes", run.folder)
            return []
        logger.info("%s: no codes as new as %s; exporting them", run.folder / "codes", newest.name)
        _export(run)
    return [_read(run, entity, levels) for entity, levels in run.levels.items()]


def _current(run: Run, newest: Path | None) -> bool:
    """Return whether every entity has codes, none of them older than the newest checkpoint."""
    since = 0.0 if newest is None else newest.stat().st_mtime
    return all(
        (files := _files(run, entity)) and min(file.stat().st_mtime for file in files) >= since
        for entity in run.levels
    )  # fmt: skip


def _files(run: Run, entity: str) -> list[Path]:
    return sorted((run.folder / "codes" / entity).glob("part-*.parquet"))


def _export(run: Run) -> None:
    from cove_dist.inference.codes import export_codes

    export_codes([override("run", str(run.folder))])


def _read(run: Run, entity: Entity, levels: tuple[int, ...]) -> EntityCodes:
    columns = [f"code_{level}" for level in range(1, len(levels) + 1)]
    tables = []
    for file in _files(run, entity):
        missing = {"original_id", *columns} - set(pq.read_schema(file).names)
        if missing:
            raise DataError(f"{file}: no column {', '.join(sorted(missing))}; remove {run.folder / 'codes'}")
        tables.append(pq.read_table(file, columns=["original_id", *columns]))
    table = pa.concat_tables(tables)
    seen = table.filter(pc.is_valid(table["code_1"]))
    codes = np.stack([seen[column].to_numpy().astype(np.int64) for column in columns], axis=1)
    for column, values, size in zip(columns, codes.T, levels, strict=True):
        if len(values) and not 0 <= values.min() <= values.max() < size:
            raise DataError(
                f"{_files(run, entity)[0].parent}: column {column} has {values.min()} to {values.max()} where the level"
                f" has {size} codes; they are of another run: remove {run.folder / 'codes'}"
            )
    return EntityCodes(entity, levels, combined(seen["original_id"]), codes)


def draw_sizes(loaded: list[EntityCodes], folder: Path) -> list[Picture]:
    """Draw the ids per code, from the largest code to the smallest: a row per entity, a column per level."""
    if not loaded:
        return []
    path = folder / "code_sizes.png"
    with canvas(path, len(loaded), max(len(entity.levels) for entity in loaded), height=2.4) as axes:
        for row, entity in zip(axes, loaded, strict=True):
            for panel in row[len(entity.levels) :]:
                panel.set_axis_off()
            for level, panel in zip(range(1, len(entity.levels) + 1), row, strict=False):
                _draw_level(panel, entity, level)
    total = ", ".join(f"{len(entity.codes):,} {entity.entity}s" for entity in loaded)
    caption = (
        f"Every id that training saw counts once ({total}), however often it occurs; so does the perplexity in the"
        " titles. Codes without an id have no bar."
    )
    return [Picture(path, "Sizes of the codes", caption)]


def _draw_level(axes: Axes, entity: EntityCodes, level: int) -> None:
    sizes, v = -np.sort(-entity.sizes(level)), entity.levels[level - 1]
    if v <= _FEW_CODES:
        axes.bar(np.arange(1, v + 1), sizes)
    else:
        axes.stairs(sizes, np.arange(v + 1) + 0.5, fill=True)
    effective = float(perplexity(torch.from_numpy(sizes)))
    title = f"{entity.entity}, level {level}: {(sizes > 0).sum():,} of {v:,} in use, perplexity {effective:.1f}"
    label(axes, title, "codes, largest first", f"{entity.entity}s per code")
    axes.set_xlim(0.5, v + 0.5)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if sizes[0] > _WIDE_RANGE * max(1, np.median(sizes)):
        logarithmic(axes, "y")
        axes.set_ylim(bottom=0.7)
