"""Start a Spark job for preparation, or join the session that runs already."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from data_pipeline.errors import DataError
from data_pipeline.preparation.dataset import Dataset
from data_pipeline.preparation.spark.supported import refuse_unsupported
from data_pipeline.preparation.spark.tables import Tables
from data_pipeline.preparation.spark.workspace import SparkWorkspace
from data_pipeline.preparation.workspace import Workspace, open_workspace

_SQL = {  # settings on which the meaning of the steps depends
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
}


@dataclass(frozen=True)
class SparkEngine:
    """Spark SQL on one machine or many. All of them see the raw files and the output folder under the same paths.

    Attributes:
        master: Address of the cluster, as ``spark://host:7077``, ``yarn`` or ``local[4]``. None: that of the session
            that runs already or of ``spark-submit``, else ``local[*]``.
        conf: Further settings of Spark, by name.
    """

    master: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)

    def check(self, dataset: Dataset, resume: bool) -> None:
        """Refuse what only DuckDB prepares; see `refuse_unsupported`."""
        refuse_unsupported(dataset)
        if resume:
            raise DataError("resume = true: not with engine=spark, which repeats lost tasks itself. Set resume=false")

    @contextmanager
    def open(
        self,
        scratch: Path,
        *,
        memory_gb: float,
        seed: int,
        on_progress: Callable[[str], None],
        on_percent: Callable[[float], None],
        resume: bool,
        keep_ids: Path | None,
    ) -> Iterator[Workspace]:
        """Open a workspace in a separate session; see `data_pipeline.preparation.workspace.open_workspace`."""
        scratch = scratch.resolve()
        options: dict[str, Any] = {
            "memory_gb": memory_gb,
            "seed": seed,
            "on_progress": on_progress,
            "on_percent": on_percent,
        }
        with open_workspace(scratch, **options) as local, self._session(on_progress) as session:
            yield SparkWorkspace(
                local.connection,
                scratch,
                seed,
                on_progress,
                tables=Tables(session, scratch / "tables"),
                memory_gb=memory_gb,
            )

    @contextmanager
    def _session(self, on_progress: Callable[[str], None]) -> Iterator[SparkSession]:
        running = SparkSession.getActiveSession()
        if running is None:
            on_progress("starting Spark")
            started = self._start()
            try:
                yield _isolated(started)
            finally:
                started.stop()
            return
        found = running.sparkContext.master
        if self.master not in (None, found) or self.conf:
            raise DataError(
                f"spark.master = {self.master}, spark.conf = {dict(self.conf)}: a Spark session on {found} runs"
                " already. Leave them out to use it, or stop it"
            )
        yield _isolated(running)

    def _start(self) -> SparkSession:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName("cove prepare").config("spark.ui.showConsoleProgress", "false")
        if master := self.master or (None if "PYSPARK_GATEWAY_PORT" in os.environ else "local[*]"):
            builder = builder.master(master)
        for name, value in self.conf.items():
            builder = builder.config(name, value)
        try:
            return builder.getOrCreate()
        except PySparkRuntimeError as error:
            raise DataError(
                f"engine = spark: Spark does not start: {error}. It needs Java 17 or later: install it, or set"
                " JAVA_HOME"
            ) from error


def _isolated(session: SparkSession) -> SparkSession:
    """Return a session on the same cluster that shares no tables, functions or SQL settings with others."""
    new = session.newSession()
    for name, value in _SQL.items():
        new.conf.set(name, value)
    return new
