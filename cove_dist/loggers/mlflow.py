"""MLflow: ``pip install 'cove-dist[mlflow]'``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

from cove_dist.loggers.base import LoggedRun, Logger, tag
from cove_dist.types import Text

_MOST_PARAMETERS = 100  # of one request
_LONGEST = 500  # characters of a parameter's value that every store accepts


class MLflow(Logger):
    """Logs to a run of MLflow, which a resumed run continues.

    ``@`` is not allowed in names there: ``ndcg@10`` is logged as ``ndcg_at_10``.

    Args:
        tracking_uri: Server, database or folder; None: ``MLFLOW_TRACKING_URI``, or MLflow's default.
        experiment: Experiment, created if there is none of this name.
        name: Name of the run; None: that of the run folder.
    """

    requires = ("mlflow", "mlflow")

    def __init__(
        self, *, tracking_uri: Text | None = None, experiment: Text = "cove_dist", name: Text | None = None
    ) -> None:
        self._uri, self._experiment, self._name = tracking_uri, experiment, name

    def start(self, run: LoggedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(self._uri)
        known = run.identity("mlflow")
        self._run = known or self._create(run)
        run.remember("mlflow", self._run)
        if known:  # parameters of a run cannot be changed; config_history.jsonl has what a resumed run changes
            self._client.update_run(self._run, status="RUNNING")
            return
        parameters = iter([Param(key, str(value)[:_LONGEST]) for key, value in run.config.items()])
        while part := list(islice(parameters, _MOST_PARAMETERS)):
            self._client.log_batch(self._run, params=part)

    def _create(self, run: LoggedRun) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        return self._client.create_run(identity, run_name=self._name or run.folder.name).info.run_id

    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        values = {"epoch": epoch, **{tag(kind, name).replace("@", "_at_"): value for name, value in metrics.items()}}
        self._client.log_batch(self._run, [Metric(name, float(value), now, step) for name, value in values.items()])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
