"""The Python API: train a run, load it, and query it with original ids.

Example::

    import cove_dist as cove

    run = cove.train(data="data/mine", model="deepfm", quantizer="cove", output="runs/a")
    run.metrics, run.evaluate("test"), run.score(users=[17, 23], items=[4, 8])
    run.recommend(users=[17], k=20)
    run.embeddings("item"), run.codes("item")
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cove_dist.config_folders import options
from cove_dist.errors import ConfigError
from cove_dist.settings import override, overrides_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cove_dist.inference.fold_in import FoldedIn
    from cove_dist.inference.session import Session

Settings = Mapping[str, Any]


def prepare(source: str | Path, output: str | Path, data: str = "custom", settings: Settings | None = None) -> Path:
    """Prepare a data set for training; see ``cove prepare --help``.

    Args:
        source: Raw files: a path or a pattern.
        output: Folder to write.
        data: Name of the data set; ``custom`` for your own files.
        settings: Further keys, such as ``{"user": "uid", "item": "iid", "label": "clicked"}``.

    Returns:
        Path of the prepared folder.

    Raises:
        ConfigError, DataError: A setting or a file is invalid.

    Example:
        >>> prepare("ratings.csv", "data/mine", settings={"rating": "stars", "threshold": 4, "label": None})
    """
    from cove_dist.commands.prepare import prepare_data

    overrides = [f"data={data}", override("source", str(source)), override("output", str(output))]
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
    """
    from cove_dist.tasks.configuration import load_run_config
    from cove_dist.training import program

    groups = {name: option for name, option in (("model", model), ("quantizer", quantizer)) if option is not None}
    overrides = [*_data(data), *overrides_of(groups), *overrides_of(settings)]
    if output is not None:
        overrides.append(override("output", str(output)))
    config, _ = load_run_config(overrides)
    if processes == 1:
        program.train(overrides)
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *torchrun, "-m", "cove_dist", "train", *overrides]
        if subprocess.run(command).returncode:
            raise ConfigError(f"training on {processes} processes failed; its messages are above")
    return Run(config.output)


def load(run: str | Path, checkpoint: Literal["best", "newest"] = "best", device: str = "auto") -> Run:
    """Load a finished run.

    Args:
        run: Run folder.
        checkpoint: ``best``, by the metric of early stopping, or ``newest``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError, CheckpointError: The run or checkpoint does not exist.
    """
    loaded = Run(run, checkpoint, device)
    loaded.session  # noqa: B018 - a folder that holds no run is refused now
    return loaded


class Run:
    """A finished run. The model is loaded into this process on first use.

    Args:
        folder: Run folder.
        checkpoint: ``best`` or ``newest``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(
        self, folder: str | Path, checkpoint: Literal["best", "newest"] = "best", device: str = "auto"
    ) -> None:
        self.folder, self.checkpoint, self.device = Path(folder), checkpoint, device

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, checkpoint={self.checkpoint!r})"

    @cached_property
    def session(self) -> Session:
        """The inference session: configuration, schema of the data, id tables and model."""
        from cove_dist.inference.session import Session

        return Session(self.folder, self.checkpoint, self.device)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of this checkpoint by split, from validation during training and from `evaluate`."""
        from cove_dist.checkpoints.files import read_meta

        found = {"validation": dict(read_meta(self.session.checkpoint).metrics)}
        for split in ("validation", "test"):
            path = self.folder / f"metrics_{split}_{self.checkpoint}.json"
            if path.is_file():
                found[split] = json.loads(path.read_text())["metrics"]
        return {split: metrics for split, metrics in found.items() if metrics}

    def evaluate(self, split: Literal["validation", "test"] = "test") -> dict[str, float | None]:
        """Compute the metrics of a split, and write them into the run folder; None is an undefined metric."""
        from cove_dist.inference.evaluate import evaluate_run

        words = {"run": str(self.folder), "split": split, "checkpoint": self.checkpoint, "device": self.device}
        evaluated = evaluate_run(overrides_of(words))
        assert evaluated is not None, "evaluate: for one process; under torchrun use cove evaluate"
        return evaluated.metrics

    def score(
        self,
        users: Iterable[Any] | None = None,
        items: Iterable[Any] = (),
        *,
        sequences: Sequence[Sequence[Any]] | None = None,
        columns: Mapping[str, Iterable[Any]] | None = None,
        unknown: Literal["error", "skip", "oov_row"] = "error",
        label: str | None = None,
    ) -> np.ndarray:
        """Score pairs of original ids: float32 ``[n]``.

        A click-through rate model gives probabilities; others give the scores that they rank by.

        Args:
            users: Original user ids ``[n]``.
            items: Original item ids ``[n]``.
            sequences: Sequences of items instead of users, for sequential models; scores the item as the next one.
            columns: Values ``[n]`` of every further column that the model reads; of a column of lists, lists of ids.
            unknown: Unseen ids: raise an error, return nan, or score the out-of-vocabulary row (of ``id_dropout``).
            label: The label, of a run with several (``ctr.label``); None: the first one.

        Raises:
            ConfigError: Ids are unknown, or columns are missing.
        """
        return self.session.score(users, items, sequences, columns, unknown, label)

    def predict(
        self,
        rows: str | Path | pa.Table,
        *,
        user: str | None = None,
        item: str | None = None,
        unknown: Literal["error", "skip"] = "error",
    ) -> pa.Table:
        """Score the rows of a Parquet or CSV file, or of a table; see ``cove predict --help``.

        Args:
            rows: Rows with the columns that the model reads, in original ids; other columns are kept.
            user, item: Names of these columns; None: as in the prepared data.
            unknown: How to handle rows with unseen users or items: raise an error, or skip them.

        Returns:
            The rows, with a column ``score``; of a run with several labels also ``score_<label>`` for each.

        Raises:
            ConfigError: A column is missing, or ids are unknown.
        """
        from cove_dist.inference.predict import predict_table

        return predict_table(self.session, rows, user=user, item=item, unknown=unknown)

    def recommend(
        self,
        users: Iterable[Any] | Literal["all"] | None = None,
        k: int = 10,
        *,
        sequences: Sequence[Sequence[Any]] | None = None,
        unknown: Literal["error", "skip", "popular", "oov_row"] = "error",
        history: Literal["remove", "keep"] = "remove",
        columns: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """List the best k items for users, or the best next items of sequences.

        Args:
            users: Original ids, or "all": all users seen in training.
            k: Number of items per list.
            sequences: Sequences of original item ids instead of users, for sequential models.
            unknown: How to handle unseen ids: raise an error, skip them (their number is logged), list the most
                frequent items of training, with null scores, or what the out-of-vocabulary row lists (for users of runs
                with ``embeddings.id_dropout``; the same for all, and nothing is removed).
            history: Whether to remove items that the user has in any split, or that are in the sequence.
            columns: A value of every further column that the model reads, the same for all pairs.

        Returns:
            ``user`` (or ``sequence``, an index), ``rank`` from 1, ``item`` and ``score``.

        Raises:
            ConfigError: Ids are unknown, or the model does not support this kind of request.
        """
        return self.session.recommend(users, k, sequences=sequences, unknown=unknown, history=history, columns=columns)

    def fold_in(
        self,
        interactions: Mapping[Any, Sequence[Any]] | pa.Table | str | Path,
        entity: Literal["user", "item"] = "user",
        *,
        unknown: Literal["error", "skip"] = "error",
        steps: int = 100,
        learning_rate: float = 0.02,
        user: str | None = None,
        item: str | None = None,
    ) -> FoldedIn:
        """Compute vectors of users or items that were never trained, by gradient steps on their rows only.

        For collaborative filtering without a graph; `cove_dist.tasks.cf.fold_in` states what the steps minimize.

        Args:
            interactions: Items of every new user, ``{user: [item, …]}``, or users of every new item; or a table or file
                (Parquet, CSV) with a row per interaction.
            entity: Whether users or items are new.
            unknown: How to handle neighbours that training did not see: raise an error, or leave them out.
            steps, learning_rate: Settings of Adam.
            user, item: Columns in a table or file; None: named as in the prepared data.

        Returns:
            The new ids: ``embeddings()``, and ``recommend(k)``.

        Raises:
            ConfigError: Neighbours are unknown, or the model cannot fold in new ids; the message states why.

        Example:
            >>> run.fold_in({"newcomer": [4, 9]}).recommend(k=5)
        """
        from cove_dist.inference.fold_in import fold_in

        return fold_in(self.session, interactions, entity, unknown, steps, learning_rate, user=user, item=item)

    def embeddings(self, entity: Literal["user", "item"]) -> pa.Table:
        """Return ``original_id`` and ``embedding`` of every id seen in training.

        These are the vectors that the model uses: fused with their codes if quantized, propagated if it has a graph.
        """
        return self.session.embeddings(entity)

    def codes(self, entity: Literal["user", "item"]) -> pa.Table:
        """Return ``original_id`` and ``code_1 … code_H``, fine to coarse, of every id seen in training."""
        return self.session.codes(entity)


def _data(data: str | Path) -> list[str]:
    """Return the overrides that name the data.

    Raises:
        ConfigError: Neither a folder nor a data set of this name exists.
    """
    if (Path(data) / "schema.json").is_file():
        return ["data=custom", override("data.path", str(data))]
    if str(data) in options("data"):
        return [f"data={data}"]
    raise ConfigError(f"data = {data}: neither a prepared folder nor one of {', '.join(options('data'))}")
