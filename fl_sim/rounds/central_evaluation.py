"""Central evaluation of the global model: on the test set, the validation share, and all training samples.

Legend: n training samples of all clients that train.
"""

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, MetricRecord
from torch import Tensor

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.engines.set_evaluation import evaluate_sets
from fl_sim.errors import ConfigError
from fl_sim.executors.base import Executor
from fl_sim.learning.loss import Loss
from fl_sim.population.partition import Partition
from fl_sim.rounds.round_evaluation import EvaluateFn
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.set_records import Flat, to_record

MOST_SHARED = 2**24
"""Most rows of clients that share samples: their list has a place for each draw, however many clients there are."""
_rows: dict[tuple[int, int, torch.device], tuple[Partition, Tensor]] = {}
"""The last result of ``rows_of_training``, which several runs share, with the partition whose id is in the key."""


def rows_of_training(partition: Partition, never_train: int, device: torch.device) -> Tensor:
    """(n,) int64, on ``device``: the training samples of all clients that train, as ``Partition.training_rows``.

    Raises
    ------
    ConfigError
        Where clients that share samples own more than ``MOST_SHARED`` together.
    """
    key = id(partition), never_train, device
    if key not in _rows:
        _rows.clear()
        clients = len(partition) - never_train
        counts = partition.size_counts(clients)
        total = int((counts[:, 0] * counts[:, 2]).sum())
        if not partition.exclusive and total > MOST_SHARED:
            what = f"the clients, which share samples, own {total} training samples, and at most {MOST_SHARED} fit"
            raise ConfigError(f"evaluate_train = True: {what}; choose fewer clients, or leave it out")
        found = partition.training_rows(clients)
        _rows[key] = partition, torch.from_numpy(found).to(device)
    return _rows[key][1]


def evaluator(learner: Learner, validation: Tree, workers: Executor, rows: Tensor | None = None) -> EvaluateFn:
    """Central evaluation, in whatever round it is called.

    Parameters
    ----------
    learner : Learner
        Its loss has the test set; ``rows`` are of its samples.
    validation : Tree
        Samples of the validation share; may be empty.
    workers : Executor
        Computes loss and metrics.
    rows : Tensor, optional
        (n,) int64, on the learner's device: the training samples on which the model is evaluated too
        (``train_set_loss``, ``train_set_NAME`` of each metric); None: on none.
    """
    loss = learner.loss

    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = tree.to(records.decode(arrays), loss.dtype)  # strategies such as FedAdam turn float32 into float64

        def evaluated(samples: Tree, rows: Tensor | None = None, prefix: str = "") -> dict[str, Flat]:
            found = {**workers.evaluate(model, samples, rows), **to_record(evaluate_sets(loss, model, samples, rows))}
            return {f"{prefix}{k}": v for k, v in found.items()}

        found = {**evaluated(loss.task.test), **evaluated(validation, prefix="val_")}
        return MetricRecord(found if rows is None else {**found, **evaluated(learner.data, rows, "train_set_")})

    return central


def validation_loss(loss: Loss, samples: Tree, workers: Executor) -> Callable[[Tree], float]:
    """A function model -> its loss on ``samples``, by which a strategy's server step may choose."""
    return lambda model: workers.evaluate(tree.to(model, loss.dtype), samples)["loss"]
