"""Calls a strategy's hooks and exchanges their messages: keyed, counted, checked, logged."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from flwr.app import Message

from fl_sim import tree
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.grids.base import ClientGrid
from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.grids.monitored import clients_of, phase_of
from fl_sim.grids.untrusted_replies.exchange_replies import Expected, readable
from fl_sim.learning.networks.home_leaves import first_home, names_of
from fl_sim.learning.rule import LocalRule
from fl_sim.logs.libraries import library_lines
from fl_sim.logs.writer import RoundLog
from fl_sim.rounds import exchange_events, expected_replies
from fl_sim.rounds.callbacks import Run
from fl_sim.rounds.foreign_statistics import ForeignStatistics
from fl_sim.tree import Tree
from fl_sim.wire import flower, payload, reply_form
from fl_sim.wire.pool import PoolingStrategy, block_pool


class StrategyCalls:
    """The calls of a strategy's hooks, and the exchanges with its clients, in one run.

    Parameters
    ----------
    run : Run
        Its strategy, grid, model and round.
    grid : ClientGrid
        The run's grid, by the interface that all grids share.
    failures : Failures
        How many clients of an exchange may fail.
    seed : int
        Keys the global generators around a hook.
    timeout : float
        Seconds to wait for the replies of an exchange.
    log : RoundLog or None
        Receives rows of clients and events.
    """

    def __init__(
        self, run: Run, grid: ClientGrid, failures: Failures, seed: int, timeout: float, log: RoundLog | None
    ) -> None:
        self.run, self.grid, self.failures, self.seed = run, grid, failures, seed
        self.timeout, self.log = timeout, log
        self.foreign = not isinstance(run.strategy, PoolingStrategy)
        inner = flower.innermost(run.strategy)
        if isinstance(inner, PoolingStrategy):
            inner.trainable, grid.reply_form = grid.trainable, inner.reply_form
            inner.at_home = kept_by_clients(inner, grid)
        self.initial: Tree = {}
        """The run's first model, whose dtypes replies to a foreign strategy may have."""
        self._own_exchange_failed: RoundFailed | None = None
        """Why an exchange failed that a hook of the strategy began itself; None where none failed."""

    def event(self, kind: str, **facts: object) -> None:
        """Record an event of this round."""
        if self.log is not None:
            self.log.event(kind, round=self.run.round, **facts)

    def log_clients(self, rows: Sequence[dict[str, object]]) -> None:
        """Write rows of clients."""
        if self.log is not None and rows:
            self.log.clients(rows)

    def log_exchange(self, exchange: Exchange) -> None:
        """Write the rows of an exchange that are left, and an event for each failure."""
        exchange_events.report(self.event, exchange)
        exchange.flush()

    def hook(self, name: str, *args: object) -> Any:
        """Call a hook of the strategy with global generators keyed by round; exchanges that it begins are counted."""
        run = self.run
        configures = name.startswith("configure")
        if configures:
            args = (*args, self.grid.for_strategy(self.failures, self.begin_own, self.end_own))
        number = run.round
        if name == "aggregate_train" and self.foreign:  # Flower's FedAdam corrects its moments by the round
            number -= getattr(run.strategy, "state_since", 0)
        with flower.keyed_hook(self.seed, name, run.round), library_lines.collected():
            result = getattr(run.strategy, name)(number, *args)
            result = list(result) if configures else result
        if self._own_exchange_failed is not None:
            raise self._own_exchange_failed
        return result

    def train_messages(self, statistics: ForeignStatistics) -> list[Message]:
        """The messages of a round's training, as the strategy makes them; sets the pool of their replies."""
        run = self.run
        arrays = self.grid.sent.begin(run.model, run.arrays, run.round)
        messages: list[Message] = self.hook("configure_train", statistics.trained(arrays), run.train_config)
        statistics.complete(messages, arrays)
        self.grid.pool = block_pool(run.strategy)  # a pool may depend on the model, which the strategy knows by now
        return messages

    def begin_own(self, messages: list[Message]) -> Exchange:
        """Start the count of an exchange that a hook of the strategy begins itself."""
        clients = clients_of(self.grid, messages)
        exchange = Exchange(self.run.round, phase_of(messages), messages, clients, sink=self.log_clients)
        own_pools = self.grid.own_pools and not self.foreign
        exchange.expected = Expected(max_examples=self.grid.max_examples, own_pools=own_pools)
        return exchange

    def end_own(self, exchange: Exchange, good: list[Message], error: RoundFailed | None) -> None:
        """Log an exchange that a hook of the strategy began itself, and keep its failure."""
        self.log_exchange(exchange)
        self._own_exchange_failed = self._own_exchange_failed or error

    def check_private(self) -> None:
        """Raise RoundFailed where a strategy for differential privacy would pass on a payload without noise.

        Nor can it clip models that lack some of the global model's arrays, which it pairs by their place.
        """
        _, beside = payload.split(self.grid.reply_form(self.run.model))
        if home := getattr(flower.innermost(self.run.strategy), "at_home", ()):
            what = f"clients of {type(flower.innermost(self.run.strategy)).__name__} keep {', '.join(home[:5])} at home"
            who = type(self.run.strategy).__name__
            raise RoundFailed(f"{what}, and {who} needs whole models of its clients; use one of the two alone")
        if beside:
            what = f"clients of {type(flower.innermost(self.run.strategy)).__name__} send {', '.join(beside)}"
            who = type(self.run.strategy).__name__
            raise RoundFailed(f"{what} beside the model, to which {who} adds no noise; use one of the two alone")

    def check_home(self) -> None:
        """Raise ConfigError where the run begins with other values of what stays with the clients than these do.

        Clients begin with those of the network, since no message has them.
        """
        names = getattr(flower.innermost(self.run.strategy), "at_home", ())
        if names and self.grid.loss is not None:
            first = tree.to(first_home(names, self.grid.loss), self.grid.loss.dtype)
            if other := [k for k in names if not torch.equal(self.run.model[k].to(first[k].dtype), first[k])]:
                what = f"the model that the run begins with has other values of {', '.join(other[:5])}"
                cure = "begin with the network's own, or pass a network that has these weights"
                raise ConfigError(f"{what} than the network, with which clients begin since they keep them; {cure}")

    def exchange(self, phase: str, messages: list[Message]) -> tuple[Exchange, Iterable[Message]]:
        """Send the round's messages; returns the exchange and the good replies.

        A ``PoolingStrategy`` gets replies as they are computed; a foreign strategy gets a list, whose form is checked
        as a whole.
        """
        run = self.run
        own_pools = self.grid.own_pools and (phase != "train" or self.grid.pool is not None)
        clients, unseen = clients_of(self.grid, messages), self.grid.holdout_node_ids
        exchange = Exchange(run.round, phase, messages, clients, unseen, sink=self.log_clients)
        exchange.validating = self.grid.validation_node_ids
        exchange.sent_bytes = self.grid.sent.num_bytes if phase == "train" and self.grid.sent.coded else None
        replies = run.grid.send_and_receive(messages, timeout=self.timeout) if messages else []
        if isinstance(run.strategy, PoolingStrategy):
            model, beside = payload.split(run.strategy.reply_form(run.model)) if phase == "train" else ({}, {})
            most = self.grid.max_examples
            exchange.expected = expected_replies.of_own(run.strategy, phase, own_pools, most, tuple(beside))
            like = reply_form.as_model(model, beside) if phase == "train" else reply_form.anything
            return exchange, exchange.checked(replies, like, self.failures)
        if phase == "train" and flower.is_private(run.strategy):
            self.check_private()
        try:
            replies = exchange.gather(replies, self.failures)
            opened = [reply for reply in replies if readable(reply)]
            exchange.expected, like = expected_replies.of_foreign(
                run.strategy, phase, messages, opened, self.initial, self.grid.max_examples
            )
            if self.grid.nan_passes and exchange.expected.not_finite == "left out":
                exchange.expected = replace(exchange.expected, not_finite="null")
            return exchange, list(exchange.checked(replies, like, self.failures))
        except RoundFailed:
            self.log_exchange(exchange)
            raise


def kept_by_clients(strategy: PoolingStrategy, grid: ClientGrid) -> tuple[str, ...]:
    """The leaves of the model that stay with the strategy's clients.

    Raises ConfigError for names that are no leaves, or where the grid does not know the network.
    """
    if not isinstance(strategy, LocalRule) or type(strategy).home is LocalRule.home:
        return ()
    if grid.loss is None:
        what = f"{type(strategy).__name__} keeps leaves of the network at home, which the grid does not know"
        raise ConfigError(f"{what}; use SimulationGrid with an app of make_app, or DeployedGrid(..., loss=loss)")
    return names_of(strategy, grid.loss)
