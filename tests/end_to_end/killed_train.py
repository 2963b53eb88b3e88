"""``cove train`` whose rank 1 is killed, by ``kill -9``, after the step KILL_AT of torchrun's first attempt."""

from __future__ import annotations

import os
import signal
import sys

from cove_dist.cli import main
from cove_dist.training.loop import TrainingLoop

after_step = TrainingLoop.after_step


def killed_after_step(self: TrainingLoop, *arguments: object) -> None:
    after_step(self, *arguments)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.trainer.context.rank == 1 and self.progress.step == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    TrainingLoop.after_step = killed_after_step
    main(["train", *sys.argv[1:]])
