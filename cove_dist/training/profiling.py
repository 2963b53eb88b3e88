"""Profiles of a window of training steps by `torch.profiler`."""

from __future__ import annotations

import logging
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from cove_dist.config.trainer import ProfileConfig
from cove_dist.distributed import DistributedContext

logger = logging.getLogger(__name__)

FOLDER = "profile"
_ROWS = 25  # of the table of operations


class StepProfiler:
    """Records the operations of a window of steps on this rank; every rank writes its own files.

    ``RUN/profile/step_<last>_rank_<r>.pt.trace.json.gz`` is a trace for https://ui.perfetto.dev and TensorBoard's
    profiler plugin; the ``.txt`` beside it is a table of the operations that took longest by themselves. An evaluation
    or a checkpoint between two steps of the window is in the trace too. Steps of the window are slower than others.

    Args:
        settings: The window; no profile if it has no beginning.
        folder: Run folder; None: no profile.
        context: Context of this rank.
    """

    def __init__(self, settings: ProfileConfig, folder: Path | None, context: DistributedContext) -> None:
        self._profile: profile | None = None
        self._written, self._step = False, 0
        self._after, self._rank = settings.after, context.rank
        if folder is None or settings.after is None:
            return
        self._folder = folder / FOLDER
        cuda = [ProfilerActivity.CUDA] if context.device.type == "cuda" else []
        self._by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        warmup = min(1, settings.after)
        self._profile = profile(
            activities=[ProfilerActivity.CPU, *cuda],
            schedule=schedule(wait=settings.after - warmup, warmup=warmup, active=settings.steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
            acc_events=True,
        )

    def __enter__(self) -> StepProfiler:
        if self._profile is not None:
            self._profile.start()
        return self

    def after_step(self, step: int) -> None:
        """End a step of training."""
        self._step = step
        if self._profile is not None:
            self._profile.step()

    def __exit__(self, *_: object) -> None:
        if self._profile is None:
            return
        self._profile.stop()
        if not self._written and self._rank == 0:
            logger.warning("trainer.profile.after = %s: training ended before; there is no profile", self._after)

    def _write(self, recorded: profile) -> None:
        """Write the trace and the table; rank 0 logs the table's place."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step_{self._step:08d}_rank_{self._rank}.pt.trace.json.gz"
        recorded.export_chrome_trace(str(path))
        table = path.with_name(path.name.replace(".pt.trace.json.gz", ".txt"))
        table.write_text(recorded.key_averages().table(sort_by=self._by, row_limit=_ROWS))
        self._written = True
        if self._rank == 0:
            logger.info("Profile: %s; operations: %s", path, table)
