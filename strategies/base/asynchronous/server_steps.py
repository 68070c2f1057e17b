"""The base class of asynchronous strategies: the server steps with some replies while other clients are at work.

A subclass says how many replies a step takes, and what a step makes of them (``apply``). Its client's half is that of
any strategy. In a synchronous round, as ``run_rounds`` drives it, all replies are fresh.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fl_sim import LocalRule, Pool, tree
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from fl_sim.wire.arrivals import Arrived, AsynchronousStrategy
from fl_sim.wire.pool import as_like
from strategies.base.round_replies import Received
from strategies.base.strategy import Strategy
from strategies.pools.mean import Mean

NOT_ROUNDS = ("cohort", "system.deadline", "system.over_select", "system.stragglers", "weighting")
"""Settings of a synchronous round, which an asynchronous run does not have."""


class Asynchronous(AsynchronousStrategy, Strategy):
    """Base class of this project's asynchronous strategies.

    What a subclass keeps from step to step is ``server_state``, as in any strategy. Running statistics (BatchNorm's)
    are not part of a step: those of the new model are the mean of the replies', or change by the mean of their changes.
    """

    refuses: tuple[str, ...] = NOT_ROUNDS
    weighting = "uniform"
    required_numbers: ClassVar[Mapping[str, Sequence[str]]] = Strategy.required_numbers

    @abstractmethod
    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """The new global model. ``model`` and the replies are copies that this function may write into.

        Parameters
        ----------
        model : Tree
            The present global model, without running statistics.
        arrived : Sequence[Arrived]
            ``replies_a_step`` replies, in the order in which the clients were done; in a synchronous round perhaps
            fewer in its last step.
        server_round : int
            The number of this step, from 1 on.
        """

    def stepped(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """The new global model: ``apply`` of what is trained, and the statistics."""
        rest = {k for k in self.statistics if k in model}
        own = {k: x for k, x in model.items() if k not in rest} if rest else model
        parts = [Arrived({k: x for k, x in one.reply.items() if k not in rest}, *one[1:]) for one in arrived]
        new = tree.clone(self.apply(tree.clone(own), parts if rest else arrived, server_round))
        return {k: new[k] if k in new else self._mean(k, model, arrived) for k in dict.fromkeys([*model, *new])}

    def _mean(self, name: str, model: Tree, arrived: Sequence[Arrived]) -> Tensor:
        """A running statistic of the new model; where no reply has it, it stays."""
        found = [one.reply[name].double() for one in arrived if name in one.reply]
        if not found:
            return model[name]
        mean = sum(found[1:], start=found[0]) / len(found)
        return as_like(model[name] + mean if self.reply_kind == "update" else mean, model[name])

    def launch_content(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, again: int) -> RecordDict:
        """The model and the settings; a second message to a client from the same model says so (``launch``)."""
        settings = self.round_settings(server_round, config) | ({"launch": again} if again else {})
        return flower.trusted(RecordDict, {"arrays": arrays, "config": records.config(settings)})

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """A synchronous round: steps with fresh replies in the order of the clients' nodes."""
        received, arrived = Received(), list[Arrived]()
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            numbers = records.numbers(reply.content)
            received.count(numbers, 1.0, False)
            arrived.append(Arrived(reply_of(reply), 0, reply.metadata.src_node_id, numbers, self.model))
        if not arrived:
            return None, None
        model = self.model
        while arrived:
            size = self.replies_a_step
            model, arrived = self.stepped(model, arrived[:size], server_round), arrived[size:]
        return records.encode(model), MetricRecord(received.metrics)

    @property
    def pool(self) -> Pool:
        """Of a synchronous round's replies where a wrapper asks for it."""
        return Mean()

    def check_asynchronous(self) -> None:
        """Raise ConfigError for what no message of an asynchronous run carries: a payload, leaves that stay at home."""
        for name, base in (("down", Strategy.down), ("up", LocalRule.up), ("home", LocalRule.home)):
            if getattr(type(self), name) is not base:
                what = f"{type(self).__name__} defines {name}, which asynchronous runs do not carry"
                raise ConfigError(f"strategy.name: {what}; leave it out")


def reply_of(reply: Message) -> Tree:
    """The arrays of a client's reply, as a tree of this reader's own."""
    found = list(records.of(reply.content, ArrayRecord).values())
    return tree.clone(records.decode(found[0])) if found else {}
