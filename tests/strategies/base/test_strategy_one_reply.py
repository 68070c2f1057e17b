"""Who is pooled in blocks: strategies that name a pool, unless they ask for one reply a client."""

from collections.abc import Iterable
from typing import Any

from flwr.app import Message

from strategies.fedavg import FedAvg


class Counting(FedAvg):
    """FedAvg that counts the messages of which each round's model is made."""

    received: list[int]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.received = [len(kept), sum("pool" in reply.content for reply in kept)]
        return super().aggregate_train(server_round, kept)


class Single(Counting):
    """The same, with one reply a client."""

    one_reply_a_client = True


def test_a_strategy_may_ask_for_one_reply_a_client_and_the_mean_is_the_same(smooth: Any) -> None:
    models = []
    for strategy, partials in ((Counting(), 1), (Single(), 0)):
        models.append(smooth.train(strategy, {"local.batch_size": 5}, rounds=2).model)
        assert strategy.received == [len(smooth.partition), partials]
    assert list(models[0]) == list(models[1])
    for name, value in models[0].items():
        assert (value - models[1][name]).abs().max() <= 1e-12
