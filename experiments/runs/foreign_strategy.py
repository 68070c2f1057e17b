"""Personal evaluation for strategies that are not this project's. No paper."""

import inspect
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from experiments.config.schema import Config
from fl_sim.errors import ConfigError
from strategies.fedavg import FedAvg


class Personalised(Strategy):
    """Any Flower strategy, training as it does, with this project's personal evaluation in place of its own evaluation on clients.

    Parameters
    ----------
    strategy : Strategy
        What trains. Replies come one a client, as for every wrapper.
    seed : int
        Keys the choice of clients.
    """

    evaluation = "personal"
    """What ``run_rounds`` calls the phase in its logs."""

    def __init__(self, strategy: Strategy, seed: int) -> None:
        self.strategy, self.ours = strategy, FedAvg()
        self.ours.seed = seed

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's own."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's own."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ours."""
        return self.ours.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ours."""
        return self.ours.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """The strategy's own."""
        self.strategy.summary()


def shared(config: Config, training_clients: int) -> dict[str, Any]:
    """Parameters of a strategy of Flower's: ``cohort`` of the clients train and none evaluate, unless its own parameters were set."""
    known = inspect.signature(config.strategy.thing).parameters
    params, cohort = dict(config.strategy.params), config.cohort or training_clients
    given = {k for k in params if k in known and params[k] != known[k].default}
    choosing = sorted(given & {"fraction_train", "min_train_nodes", "min_available_nodes"})
    if choosing and config.cohort:
        key = choosing[0]
        raise ConfigError(
            f"cohort = {cohort}, strategy.{key} = {params[key]!r}: both say how many clients train; give one of them"
        )
    if "fraction_train" in known and not choosing:
        params |= {
            "fraction_train": cohort / training_clients,
            "min_train_nodes": cohort,
            "min_available_nodes": cohort,
        }
    if "fraction_evaluate" in known and not given & {"fraction_evaluate", "min_evaluate_nodes"}:
        params |= {"fraction_evaluate": 0.0, "min_evaluate_nodes": 0}
    return params
