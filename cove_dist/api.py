"""The Python API: train a run, load it, and query it with original ids.

Example::

    import cove_dist as cove

    run = cove.train(data="data/mine", model="deepfm", quantizer="cove", output="runs/a")
    run.metrics, run.evaluate("test"), run.score(users=[17, 23], items=[4, 8])
    run.recommend(users=[17], k=20)
    run.embeddings("item"), run.codes("item")
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from cove_dist.config_folders import options
from cove_dist.console import quiet_imported_libraries
from cove_dist.errors import ConfigError, TrainingError
from cove_dist.from_python import override, overrides_of
from cove_dist.inference.run import Run

Settings = Mapping[str, Any]


class _Default(Enum):
    """What an argument is that is not given, where None is a value."""

    NOT_GIVEN = "as in the data set's YAML file"

    def __repr__(self) -> str:
        return self.name


def prepare(
    source: str | Path | Sequence[str | Path] | _Default | None = _Default.NOT_GIVEN,
    output: str | Path | None = None,
    data: str = "custom",
    settings: Settings | None = None,
) -> Path:
    """Prepare a data set for training; see ``cove prepare --help``.

    Args:
        source: Raw files: a path, a pattern, a folder or an address, or for ``custom`` and ``user_lines`` a list of
            them; the key ``file`` of ``user_lines``. None: no such files, because ``settings`` name those of a
            ready-made split, or the data set is downloaded. Not given: as in the YAML file of the data set.
        output: Folder to write; None: ``path`` in that file, and for ``encoded`` data their own folder.
        data: Name of the data set; ``custom`` for your own files.
        settings: Further keys, such as ``{"user": "uid", "item": "iid", "label": "clicked"}``.

    Returns:
        Path of the prepared folder.

    Raises:
        ConfigError, DataError: A setting or a file is invalid, or the data set reads no raw files.

    Example:
        >>> prepare("ratings.csv", "data/mine", settings={"rating": "stars", "threshold": 4, "label": None})
        >>> prepare(["monday.csv", "tuesday.csv"], "data/days", settings={"time": "timestamp"})
        >>> prepare(None, "data/given", settings={"train": "train.csv", "test": "test.csv"})  # a ready-made split
        >>> prepare("playlists/*.txt", "data/lines", data="user_lines")
        >>> prepare("data/clicks", data="encoded", settings={"user": "uid"})  # described in data/clicks
        >>> prepare(data="movielens_1m")  # downloaded; prepared in data/movielens_1m
        >>> prepare(output="data/made", data="synthetic", settings={"users": 1000, "rows": 50_000})
    """
    from cove_dist.commands.prepare import prepare_data, source_key

    overrides = [override("data", data)]
    if not isinstance(source, _Default):
        key = source_key(data)
        if key is None and source is not None:
            raise ConfigError(f"source = {source}: data={data} reads no raw files; leave source out")
        overrides += [] if key is None else [override(key, source)]
    if output is not None:
        overrides.append(override("output", output))
    return prepare_data([*overrides, *overrides_of(settings)])


def plan(settings: Settings, model: str | None = None, data: str | Path | None = None) -> dict[str, Any]:
    """Plan a training run, on any machine; see ``cove plan --help``.

    Args:
        settings: The machines, the run and, without ``data``, the sizes of the data, such as ``{"world_size": 16,
            "hbm_gb": 80, "users": 1e9, "items": 1e8, "embeddings.dim": 32}``.
        model: Option of this group; None: deepfm.
        data: A prepared folder, or the name of a data set prepared in its default folder; None: sizes are stated.

    Returns:
        ``fits``, ``tables``, ``bytes_per_rank``, ``traffic_bytes``, ``step_ms`` and what else ``json=FILE`` holds.

    Raises:
        ConfigError, DataError: A setting or the data are invalid.

    Example:
        >>> sizes = {"users": 1_000_000, "items": 100_000, "world_size": 4, "trainer.batch_size": 4096}
        >>> plan(sizes, model="dcn")["fits"]
        True
    """
    quiet_imported_libraries()
    from cove_dist.planning.program import plan_run
    from cove_dist.planning.request import read_request

    groups = {} if model is None else {"model": model}
    given = [] if data is None else _data(data)
    return plan_run(read_request([*given, *overrides_of(groups), *overrides_of(settings)])).record()


def train(
    data: str | Path,
    model: str | None = None,
    quantizer: str | None = None,
    output: str | Path | None = None,
    settings: Settings | None = None,
    processes: int = 1,
) -> Run:
    """Train a model, and return its run; see ``cove train --help``.

    Args:
        data: A prepared folder, or the name of a data set prepared in its default folder.
        model, quantizer: Options of these groups; None: deepfm and none, or those of a warm start.
        output: Run folder; None: named by data, quantizer, model and seed.
        settings: Further keys, such as ``{"trainer.epochs": 5, "embeddings.dim": 32}``.
        processes: Number of ranks, started by torchrun; 1 trains in this process.

    Raises:
        ConfigError, DataError, TrainingError: A setting or the data are invalid, or training failed.
        KeyboardInterrupt: After several processes have saved and stopped; ``trainer.checkpoint.resume=auto`` resumes.
    """
    quiet_imported_libraries()
    from cove_dist.inference.arguments import check_count
    from cove_dist.tasks.configuration import load_run_config
    from cove_dist.training import program

    check_count("processes", processes)
    groups = {name: option for name, option in (("model", model), ("quantizer", quantizer)) if option is not None}
    overrides = [*_data(data), *overrides_of(groups), *overrides_of(settings)]
    if output is not None:
        overrides.append(override("output", str(output)))
    config, _ = load_run_config(overrides)
    if config.trainer.debug:
        raise ConfigError("trainer.debug = true: leaves no run, and sets torch for the whole process; use cove train")
    if processes == 1:
        program.train(overrides)
    else:
        from cove_dist.experiments.process import end

        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *torchrun, "-m", "cove_dist", "train", *overrides]
        process = subprocess.Popen(command, start_new_session=True)  # so that Ctrl-C reaches only this process
        try:
            process.wait()
        finally:
            end(process, grace=60)  # torchrun gives its ranks 30 s
        if process.returncode:
            raise TrainingError(f"training on {processes} processes failed; its messages are above")
    return Run(config.output)


def load(
    run: str | Path,
    checkpoint: Literal["best", "newest"] = "best",
    device: str = "auto",
    data: str | Path | None = None,
) -> Run:
    """Load a finished run.

    Args:
        run: Run folder.
        checkpoint: ``best``, by the metric of early stopping, or ``newest``.
        device: ``auto``, ``cpu`` or ``cuda``.
        data: Folder with the run's data, if they were moved: their fingerprint must be that of the training. None: the
            folder that the run names, relative to the working directory of now or of the training.

    Raises:
        ConfigError, CheckpointError: The run, its data or the checkpoint do not exist.
    """
    loaded = Run(run, checkpoint, device, data)
    loaded.session  # noqa: B018 - a folder that holds no run is refused now
    return loaded


def _data(data: str | Path) -> list[str]:
    """Return the overrides that name the data: a text names a data set, as for ``cove train``, before a folder.

    Raises:
        ConfigError: Neither a folder nor a data set of this name exists.
    """
    if isinstance(data, str) and data in options("data"):
        return [f"data={data}"]
    if (Path(data) / "schema.json").is_file():
        return ["data=custom", override("data.path", str(data))]
    raise ConfigError(f"data = {data}: neither a prepared folder nor one of {', '.join(options('data'))}")
