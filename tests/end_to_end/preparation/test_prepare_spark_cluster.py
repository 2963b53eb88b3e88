"""``engine=spark`` on two executors, each a process, which Spark starts and stops for one preparation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyspark

from data_pipeline.preparation.spark.engine import SparkEngine
from tests.end_to_end.preparation.test_prepare_spark import SMALL, prepare_with_both, write_ties

WORK = Path(pyspark.__file__).parent / "work"  # where Spark puts the logs of executors


def test_executors_in_processes_of_their_own_write_the_same_folder(tmp_path: Path) -> None:
    before = set(WORK.glob("*"))
    conf = {**SMALL, "spark.executor.memory": "512m", "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
    engine = SparkEngine("local-cluster[2,1,1024]", conf)
    prepare_with_both(engine, tmp_path, write_ties(tmp_path), split="user_time", on_invalid="drop")
    started = set(WORK.glob("*")) - before
    logs = [path for application in started for path in application.glob("*/stderr")]
    assert {path.parent.name for path in logs} >= {"0", "1"}
    assert all("Running task" in path.read_text() for path in logs if path.parent.name in "01")
    for application in started:
        shutil.rmtree(application)
