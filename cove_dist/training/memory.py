"""Memory use of this process."""

from __future__ import annotations

from pathlib import Path

import torch


def resident_mb() -> float:
    """Return the resident memory in MB, from Linux's ``/proc``."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def device_mb(device: torch.device) -> float:
    """Return the peak memory in MB allocated for tensors on a CUDA device since the process started."""
    return torch.cuda.max_memory_allocated(device) / (1 << 20)
