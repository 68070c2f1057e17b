"""Personal evaluation for strategies that are not this project's. No paper."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

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

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """The strategy's own."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's own."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Ours."""
        return self.ours.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ours."""
        return self.ours.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """The strategy's own."""
        self.strategy.summary()
