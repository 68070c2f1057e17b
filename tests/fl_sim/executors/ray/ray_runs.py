"""Runs for the tests of Ray's workers: one task, trained in one process or on Ray, and tables of logs to compare."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.run import Outcome, run
from fl_sim import Callback, from_arrays
from fl_sim.logs.round_columns import MEASURED
from strategies.fedavg import FedAvg

CLIENTS = 12
DRAW = np.random.default_rng(0)
OWNER = np.repeat(np.arange(CLIENTS), DRAW.integers(5, 30, CLIENTS))
X = np.column_stack([OWNER, DRAW.normal(size=(len(OWNER), 700))])
"""Large enough for the object store; column 0 is the client's number."""
Y = (X[:, 1:] @ DRAW.normal(size=(700, 3))).argmax(1)
TASK = from_arrays(
    X.astype(np.float32), Y, clients=OWNER, x_test=np.tile(X, (8, 1)).astype(np.float32), y_test=np.tile(Y, 8)
)
SETTINGS: dict[str, Any] = {
    "task": TASK,
    "model": "mlp",
    "rounds": 3,
    "block_size": 2,
    "local": {"lr": 0.01, "epochs": 2},
}
RAY: dict[str, Any] = {"num_workers": 2, "engine": "loop"}


def on_ray(
    out: Path, strategy: FedAvg | str | None = None, callbacks: Iterable[Callback] = (), **settings: Any
) -> Outcome:
    """A run on Ray's workers."""
    settings = {"ray": RAY, **SETTINGS, **settings}
    return run(strategy=strategy or FedAvg(), engine="ray", out=str(out), callbacks=list(callbacks), **settings)


def inline(out: Path, strategy: FedAvg | str | None = None, **settings: Any) -> Outcome:
    """The same run in this process."""
    return run(strategy=strategy or FedAvg(), out=str(out), **{"engine": "loop", **SETTINGS, **settings})


def table(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a log, without the columns and events that depend on the clock and on the workers."""
    kept = frame[[c for c in frame.columns if c not in (*MEASURED, "node", "device")]]
    if "event" in kept:
        kept = kept[~kept["event"].isin(["start", "resumed", "worker_started"])]
    return [{k: v for k, v in row.items() if v is not None and v == v} for row in kept.to_dict("records")]
