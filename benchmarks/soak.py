"""Training under faults: two ranks, a seeded random fault every two minutes, and the losses of a run without faults.

    python benchmarks/soak.py --minutes 30 --seed 0 --json FILE
    python benchmarks/soak.py --faults kill_rank flip_byte --every 0

Faults are really done to processes and files of a run under torchrun: see `FAULTS`. What stops is started again with
resume=auto, and nothing else is done for it. At the end the run is stopped by SIGTERM, a run without faults is trained
for as many steps, and every loss and validation metric of the two must be equal, bit for bit. Exits with 1 if one
differs, if training does not go on, or if a process outlives the fault that should end it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from measured import write_measurements
from rich.console import Console
from rich.table import Table

from cove_dist.checkpoints.files import CheckpointFolder
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.preparation.prepare import prepare

ROOT = Path(__file__).resolve().parents[1]
LOG_EVERY, SAVE_EVERY = 5, 10
PATIENCE = 300.0  # seconds for a process to end, or for training to go on
SETTINGS = (
    "data=synthetic", "quantizer=cove", "quantizer.user_levels=[8,3]", "quantizer.item_levels=[12,4]",
    "quantizer.revive_every=50", "model.hidden_units=[16,8]", "embeddings.dim=8",
    "embeddings.optimizer.name=rowwise_adagrad", "embeddings.sharding.default=row_wise", "trainer.device=cpu",
    "trainer.batch_size=240", "trainer.epochs=1000000", "trainer.early_stopping.patience=null",
    f"trainer.log_every={LOG_EVERY}", f"trainer.checkpoint.every_steps={SAVE_EVERY}", "trainer.checkpoint.keep=3",
    "trainer.checkpoint.resume=auto",
)  # fmt: skip


class Training:
    """A run under torchrun, with two ranks, that is started as often as needed."""

    def __init__(self, data: Path, run: Path, *overrides: str) -> None:
        self.run, self.files = run, CheckpointFolder(run / "checkpoints")
        self._output = run.with_suffix(".out")
        self._arguments = ["train", *SETTINGS, f"data.path={data}", f"output={run}", *overrides]
        self.start()

    def start(self) -> None:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=99"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with self._output.open("a") as output:
            self.torchrun = subprocess.Popen(
                [sys.executable, "-m", *torchrun, "-m", "cove_dist", *self._arguments],
                stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            )  # fmt: skip

    def ranks(self) -> list[int]:
        """Return the process ids of the ranks."""
        children = Path(f"/proc/{self.torchrun.pid}/task/{self.torchrun.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def step(self) -> int:
        """Return the step of the newest complete checkpoint."""
        return int(self.files.complete()[-1].name.removeprefix("step_"))

    def resumed(self) -> int:
        """Return the step at which the run went on the last time it was started."""
        text = re.sub(r"\s", "", self._output.read_text(errors="replace").lower())  # the log wraps its lines
        return int(re.findall(r"resumedfrom[^ ]*?step_(\d{8})", text)[-1])

    def wait(self, seconds: float = 0.0) -> None:
        """Wait for this time, then until two checkpoints were saved since now.

        Raises:
            SystemExit: Training ended, or does not go on.
        """
        before, end = (self.files.steps() or [Path()])[-1].name, time.monotonic() + seconds
        until = end + PATIENCE
        while time.monotonic() < end or len([p for p in self.files.complete() if p.name > before]) < 2:
            if self.torchrun.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"training does not go on; its output:\n{self.output()}")
            time.sleep(0.05)

    def wait_for_end(self, ranks: Sequence[int]) -> None:
        """Wait until torchrun and these ranks are gone.

        Raises:
            SystemExit: One of them outlives it; then it is killed.
        """
        until = time.monotonic() + PATIENCE
        while self.torchrun.poll() is None or any(map(is_alive, ranks)):
            if time.monotonic() > until:
                self.kill()
                raise SystemExit(f"processes outlive the fault; output of the run:\n{self.output()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill torchrun and all ranks at once, as a power cut does."""
        for pid in [self.torchrun.pid, *self.ranks()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.torchrun.wait()

    def output(self) -> str:
        return self._output.read_text(errors="replace")[-5000:]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_rank(training: Training, draw: random.Random) -> None:
    os.kill(draw.choice(training.ranks()), signal.SIGKILL)


def stop_rank(training: Training, draw: random.Random) -> None:
    rank = draw.choice(training.ranks())
    os.kill(rank, signal.SIGSTOP)
    time.sleep(3)
    os.kill(rank, signal.SIGCONT)


def terminate_rank(training: Training, draw: random.Random) -> None:
    os.kill(draw.choice(training.ranks()), signal.SIGTERM)


def power_cut(training: Training, draw: random.Random) -> None:
    training.kill()


def damaged_file(training: Training, draw: random.Random) -> Path:
    """Cut the power; return a file of the newest checkpoint."""
    training.kill()
    return draw.choice(sorted(path for path in training.files.complete()[-1].iterdir() if path.stat().st_size))


def flip_byte(training: Training, draw: random.Random) -> None:
    path = damaged_file(training, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut_file(training: Training, draw: random.Random) -> None:
    path = damaged_file(training, draw)
    os.truncate(path, draw.randrange(path.stat().st_size))


def delete_file(training: Training, draw: random.Random) -> None:
    damaged_file(training, draw).unlink()


def tear_log(training: Training, draw: random.Random) -> None:
    training.kill()
    with (training.run / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "step": 1')


Fault = Callable[[Training, random.Random], None]
GOES_ON: dict[str, Fault] = {"kill_rank": kill_rank, "stop_rank": stop_rank}
_ENDING = (terminate_rank, power_cut, flip_byte, cut_file, delete_file, tear_log)
FAULTS: dict[str, Fault] = GOES_ON | {
    "kill_torchrun": lambda training, draw: training.torchrun.kill(),
    "terminate_torchrun": lambda training, draw: training.torchrun.terminate(),
    "interrupt_torchrun": lambda training, draw: training.torchrun.send_signal(signal.SIGINT),
    **{each.__name__: each for each in _ENDING},
}


@dataclass(frozen=True)
class Survived:
    """A fault after which training went on.

    Attributes:
        fault: Its name.
        step: Of the newest checkpoint before it.
        resumed: Step of the checkpoint from which training went on; None where it was not started again.
        seconds: From the fault to the second checkpoint after it.
    """

    fault: str
    step: int
    resumed: int | None
    seconds: float


def soak(training: Training, faults: Iterator[str], every: float, seed: int) -> list[Survived]:
    """Do one fault after the other to a run, and wait each time until it goes on."""
    draw, survived = random.Random(seed), []
    training.wait()
    for fault in faults:
        training.wait(every)
        started, step, ranks = time.monotonic(), training.step(), training.ranks()
        FAULTS[fault](training, draw)
        if fault not in GOES_ON:
            training.wait_for_end(ranks)
            training.start()
        training.wait()
        resumed = None if fault == "stop_rank" else training.resumed()
        survived.append(Survived(fault, step, resumed, time.monotonic() - started))
        print(survived[-1], flush=True)
    training.torchrun.terminate()
    training.wait_for_end(training.ranks())
    return survived


def random_faults(minutes: float, seed: int) -> Iterator[str]:
    """Yield every fault in random order, again and again, until the time is over."""
    draw, until = random.Random(seed), time.monotonic() + 60 * minutes
    while True:
        for fault in draw.sample(sorted(FAULTS), len(FAULTS)):
            if time.monotonic() > until:
                return
            yield fault


def records(run: Path, steps: int) -> list[tuple[str, int, float]]:
    """Return kind, step and loss or AUC of the reports of whole intervals and epochs."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = [(r["kind"], r["step"], r.get("loss", r.get("auc"))) for r in found if r["kind"] in ("train", "validation")]
    whole = [r for r in kept if r[1] <= steps and (r[0] == "validation" or r[1] % LOG_EVERY == 0)]
    return [r for r in whole if r[0] == "train" or r[1] < steps]  # max_steps evaluates within an epoch


def compare(soaked: Path, whole: Path, steps: int) -> list[str]:
    """Return a line for each record that one run lacks or has differently."""
    left, right = ({r[:2]: r[2] for r in records(run, steps)} for run in (soaked, whole))
    return [
        f"{key}: {left.get(key)} with faults, {right.get(key)} without"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=120, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--faults", nargs="*", choices=sorted(FAULTS), help="these, in this order, instead of random ones"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(Synthetic(users=60, items=80, rows=12_001), folder / "data", name="synthetic")
        training = Training(folder / "data", folder / "soaked")
        try:
            faults = iter(given.faults) if given.faults else random_faults(given.minutes, given.seed)
            survived = soak(training, faults, given.every, given.seed)
            steps = training.step()
            whole = Training(folder / "data", folder / "whole", f"trainer.max_steps={steps}")
            if whole.torchrun.wait():
                raise SystemExit(whole.output())
        finally:
            training.kill()
        differences = compare(folder / "soaked", folder / "whole", steps)
        compared = len(records(folder / "whole", steps))
    show(survived, steps, compared, differences)
    if given.json:
        found = {"seed": given.seed, "steps": steps, "compared": compared, "differences": differences}
        write_measurements(given.json, found | {"survived": [asdict(each) for each in survived]})
    if differences or not compared:
        sys.exit(1)


def show(survived: Sequence[Survived], steps: int, compared: int, differences: Sequence[str]) -> None:
    table = Table("fault", "at step", "resumed from", "seconds until two checkpoints more", title="faults survived")
    for each in survived:
        table.add_row(each.fault, str(each.step), str(each.resumed or ""), f"{each.seconds:.0f}")
    Console().print(table)
    print(f"{len(survived)} faults in {steps} steps; {compared} losses and metrics compared, {len(differences)} differ")
    print("\n".join(differences[:20]))


if __name__ == "__main__":
    main()
