"""Strategies that are not this project's: personal evaluation, and the number of clients in a round."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbBagging, Strategy

from experiments.config.schema import Config
from fl_sim.errors import ConfigError
from strategies.fedavg import FedAvg


class Personalised(Strategy):
    """Any Flower strategy with this project's personal evaluation in place of the strategy's own evaluation on clients.

    Parameters
    ----------
    strategy : Strategy
        Trains the global model. Its clients' replies are not pooled before they reach it, as for every wrapper.
    seed : int
        Key of the choice of clients that are evaluated.
    """

    evaluation = "personal"
    """Name of the evaluation phase in the logs of ``run_rounds``."""
    required_numbers: ClassVar[Mapping[str, Sequence[str]]] = {"personal": FedAvg.required_numbers["personal"]}
    """The numbers without which a reply cannot be used, by phase."""

    def __init__(self, strategy: Strategy, seed: int) -> None:
        self.strategy, self.personal = strategy, FedAvg()
        self.personal.seed = seed

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Passed on to the strategy."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Passed on to the strategy."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """This project's personal evaluation."""
        return self.personal.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """This project's personal evaluation."""
        return self.personal.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Passed on to the strategy."""
        self.strategy.summary()


def adapt(strategy: Strategy, name: str) -> None:
    """Let a strategy of Flower's read the numbers that clients here report.

    Raises ConfigError for one that joins trees of XGBoost, which no client here trains.
    """
    if isinstance(strategy, FedXgbBagging):
        what = "it joins trees of XGBoost, and clients here train networks"
        raise ConfigError(f"strategy.name = {name!r}: {what}; run it from a Flower app of yours: --app FOLDER")
    if getattr(strategy, "train_loss_key", "") == "train_loss":  # QFedAvg's default; clients here report it as "loss"
        vars(strategy)["train_loss_key"] = "loss"


def shared(config: Config, training_clients: int, asked: int) -> dict[str, object]:
    """Parameters for a strategy of Flower's: ``asked`` clients train and none evaluate, unless the user set others.

    Parameters
    ----------
    config : Config
        The run's config, with the strategy's parameters.
    training_clients : int
        Clients that may train.
    asked : int
        Clients that a round asks: the cohort, or more (``system.over_select``).

    Raises
    ------
    ConfigError
        Where both ``cohort`` and a parameter of the strategy set the number of clients in a round, and where a
        parameter is about the strategy's own evaluation, which personal evaluation replaces.
    """
    known = inspect.signature(config.strategy.component).parameters
    params, cohort, over = dict(config.strategy.params), config.cohort, config.system.over_select
    explicit = {k for k in params if k in known and k in config.strategy.given}
    choosing = sorted(explicit & {"fraction_train", "min_train_nodes", "min_available_nodes"})
    if choosing and over > 1:
        key, why = choosing[0], "both say how many clients are asked; give one of them"
        raise ConfigError(f"system.over_select = {over:g}, strategy.{key} = {params[key]!r}: {why}")
    if choosing and cohort:
        key = choosing[0]
        raise ConfigError(
            f"cohort = {cohort}, strategy.{key} = {params[key]!r}: both say how many clients train; give one of them"
        )
    if "fraction_train" in known and not choosing:
        wanted = {
            "fraction_train": asked / training_clients,
            "min_train_nodes": asked,
            "min_available_nodes": asked,
        }
        params |= {key: value for key, value in wanted.items() if key in known}
    evaluating = sorted(explicit & {"fraction_evaluate", "min_evaluate_nodes"})
    if evaluating and config.personalize_steps:
        key = evaluating[0]
        why = "personal evaluation takes the place of the strategy's own evaluation on clients"
        raise ConfigError(f"strategy.{key} = {params[key]!r}: {why}; leave it out, or personalize_steps")
    if "fraction_evaluate" in known and not evaluating:
        params |= {k: v for k, v in {"fraction_evaluate": 0.0, "min_evaluate_nodes": 0}.items() if k in known}
    return params
