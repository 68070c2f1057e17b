"""MLflow: one run in the database ``RUN/mlflow.db`` (SQLite, because newer versions refuse plain folders).

``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows it. Where MLFLOW_TRACKING_URI is set, the run is there.
"""

import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("mlflow", "sqlalchemy", "alembic")
"""What must be installed."""
EXPERIMENT = "fl-sim"
"""Name of the experiment in MLflow that holds the runs."""
MOST_PARAMS, MOST_CHARS = 100, 500
"""Settings that MLflow takes at once, and characters of a value."""


class MLflow:
    """A run of MLflow."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        # by name: only a run that asks for it needs it
        tracking: Any = importlib.import_module("mlflow.tracking")
        entities: Any = importlib.import_module("mlflow.entities")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self.client, self.entities = tracking.MlflowClient(tracking_uri=uri), entities
        known = self.client.get_experiment_by_name(EXPERIMENT)
        where = self.client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        self.run = self.client.create_run(where, run_name=folder.name).info.run_id
        params = [entities.Param(key, str(value)[:MOST_CHARS]) for key, value in settings.items()]
        for begin in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(self.run, params=params[begin : begin + MOST_PARAMS])

    def numbers(self, server_round: int, values: Mapping[str, float]) -> None:
        """One metric a column, at the step of its round."""
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(name, value, now, server_round) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run)


start = MLflow
"""Begins a run."""
