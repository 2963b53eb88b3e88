"""A finished run, queried with original ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cove_dist.console import quiet_imported_libraries
from cove_dist.from_python import overrides_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cove_dist.inference.fold_in import FoldedIn
    from cove_dist.inference.session import Session


class Run:
    """A finished run. The model is loaded into this process on first use.

    Args:
        folder: Run folder.
        checkpoint: ``best`` or ``newest``.
        device: ``auto``, ``cpu`` or ``cuda``.
        data: Folder of the run's data, if they were moved.
    """

    def __init__(
        self,
        folder: str | Path,
        checkpoint: Literal["best", "newest"] = "best",
        device: str = "auto",
        data: str | Path | None = None,
    ) -> None:
        self.folder, self.checkpoint, self.device = Path(folder).absolute(), checkpoint, device
        self._data = data

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, checkpoint={self.checkpoint!r})"

    @cached_property
    def session(self) -> Session:
        """The inference session: configuration, schema of the data, id tables and model."""
        quiet_imported_libraries()
        from cove_dist.inference.session import Session

        return Session(self.folder, self.checkpoint, self.device, self._data)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of this checkpoint by split, from validation during training and from `evaluate`."""
        from cove_dist.checkpoints.files import read_meta
        from cove_dist.evaluation.metrics_files import metrics_path
        from cove_dist.runs import read_json

        found = {"validation": dict(read_meta(self.session.checkpoint).metrics)}
        for split in ("validation", "test"):
            content = read_json(metrics_path(self.folder, split, self.checkpoint))
            if content.get("checkpoint") == self.session.checkpoint.name:  # not an earlier best or newest one
                found[split] = content["metrics"]
        return {split: metrics for split, metrics in found.items() if metrics}

    def evaluate(
        self,
        split: Literal["validation", "test"] = "test",
        *,
        batch_size: int | None = None,
        by_frequency: bool | None = None,
        save_predictions: bool = False,
    ) -> dict[str, float | None]:
        """Compute the metrics of a split, and write them into the run folder; None is an undefined metric.

        Args:
            split: Split of the run's data.
            batch_size: Rows per step; None: the run's ``trainer.evaluation_batch_size``.
            by_frequency: Whether to compute metrics also by how often users and items occur in training; None: where
                the task has such metrics.
            save_predictions: Whether to write ``predictions_<split>/`` into the run folder, the score of every row.

        Raises:
            ConfigError: The task has no metrics by frequency, or no predictions.
            NotSavedError: The file could not be written; ``error.evaluated.metrics`` has the metrics.
        """
        from cove_dist.inference.evaluate import evaluate_run

        given = {"batch_size": batch_size, "by_frequency": by_frequency, "save_predictions": save_predictions}
        evaluated = evaluate_run(self._overrides({"split": split, **given}))
        assert evaluated is not None, "evaluate: for one process; under torchrun use cove evaluate"
        return evaluated.metrics

    def export(
        self,
        what: str | Sequence[str] = "codes",
        output: str | Path | None = None,
        precision: Literal["float32", "bfloat16", "int8"] = "float32",
        *,
        batch_size: int | None = None,
    ) -> list[Path]:
        """Write files for other programs; see ``cove export --help`` and ``docs/serving.md``.

        Args:
            what: One or several of ``codes`` (with the codebooks), ``embeddings`` (Parquet and safetensors), ``index``
                (of items, FAISS), ``model`` (a program that `torch.export.load` reads) and ``onnx``.
            output: Folder to write, with a folder in it for each of several kinds; None: ``codes``, ``embeddings`` …
                in the run folder.
            precision: Of the tables of ``embeddings``, ``model`` and ``onnx``; ``export.json`` has the change of every
                metric by rounding.
            batch_size: Ids per look-up of ``codes``: memory, not results; None: 65,536.

        Returns:
            The written folders, in the order of ``what``; all kinds are written, or none.

        Raises:
            ConfigError: The model does not support a kind, a package is missing, or a folder holds other files.

        Example:
            >>> run.export(["embeddings", "model"], "exported", precision="int8")
            [PosixPath('exported/embeddings'), PosixPath('exported/model')]
        """
        from cove_dist.inference.export import export_run

        given = {"output": output, "precision": precision}
        sizes = {} if batch_size is None else {"batch_size": batch_size}
        return export_run(self._overrides({"what": [what] if isinstance(what, str) else what, **given, **sizes}))

    def _overrides(self, settings: Mapping[str, Any]) -> list[str]:
        """Return settings of a command with those that name this run."""
        named = {"run": str(self.folder), "checkpoint": self.checkpoint, "device": self.device}
        return overrides_of({**named, "data": {"path": str(self.session.data)}, **settings})

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
            unknown: Unseen ids: raise an error, return nan, or score the out-of-vocabulary row (of ``id_dropout``
                or ``unseen=codes``).
            label: The label, of a run with several (``ctr.label``); None: the first one.

        Raises:
            ConfigError: Ids are unknown, or columns are missing.
        """
        with self.session.reading_data():
            return self.session.score(users, items, sequences, columns, unknown, label)

    def predict(
        self,
        rows: str | Path | pa.Table | Any,
        *,
        user: str | None = None,
        item: str | None = None,
        unknown: Literal["error", "skip", "oov_row"] = "error",
    ) -> pa.Table:
        """Score the rows of Parquet or CSV files, of a table or of a data frame; see ``cove predict --help``.

        Args:
            rows: Rows with the columns that the model reads, in original ids; other columns are kept. A file, a folder
                or glob of files, a table or record batch of Arrow, or a data frame that Arrow reads (pandas, polars).
            user, item: Names of these columns; None: as in the prepared data.
            unknown: How to handle rows with unseen users or items: raise an error, skip them, or score the
                out-of-vocabulary row, as `score` does.

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
                with ``embeddings.id_dropout`` or ``unseen=codes``; the same for all, and nothing is removed).
            history: Whether to remove items that the user has in any split, or that are in the sequence.
            columns: A value of every further column that the model reads, the same for all pairs.

        Returns:
            ``user`` (or ``sequence``, an index), ``rank`` from 1, ``item`` and ``score``.

        Raises:
            ConfigError: Ids are unknown, or the model does not support this kind of request.
        """
        given: dict[str, Any] = {"sequences": sequences, "unknown": unknown, "history": history, "columns": columns}
        with self.session.reading_data():
            return self.session.recommend(users, k, **given)

    def fold_in(
        self,
        interactions: Mapping[Any, Sequence[Any]] | pa.Table | str | Path | Any,
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
            interactions: Items of every new user, ``{user: [item, …]}``, or users of every new item; or a table, a data
                frame or a file (Parquet, CSV) with a row per interaction.
            entity: Whether users or items are new.
            unknown: How to handle neighbors that training did not see: raise an error, or leave them out.
            steps, learning_rate: Settings of Adam.
            user, item: Columns in a table or file; None: named as in the prepared data.

        Returns:
            The new ids: ``embeddings()``, and ``recommend(k)``.

        Raises:
            ConfigError: Neighbors are unknown, or the model cannot fold in new ids; the message states why.

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
