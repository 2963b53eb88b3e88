"""What a file of measurements says of their circumstances: machine, versions, date and program."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cove_dist.doctor import installed_versions
from data_pipeline.json_files import write_json


def write_measurements(path: Path, content: Mapping[str, Any]) -> None:
    """Write measurements as JSON, with the circumstances under ``measured``."""
    write_json(path, {"measured": circumstances(), **content})


def circumstances() -> dict[str, Any]:
    """Return date, machine, versions and program of this process."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "program": f"benchmarks/{Path(sys.argv[0]).name}",
    }


def _processor() -> str:
    """Return the processor's name; on systems without /proc/cpuinfo, its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
