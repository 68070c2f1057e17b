"""A strategy whose payload has a pool of its own, in whole rounds: what the server gets."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch

from fl_sim import Batch, Local, Loss
from fl_sim.local import Update
from fl_sim.tree import Tree
from strategies.base import Pooled, Strategy
from strategies.pools.max import Max


class Counts(Strategy):
    """Clients send their number of batches twice: the server gets the largest and the mean; it sends the round down."""

    payload_pools = {"most": Max()}  # noqa: RUF012
    got: tuple[dict[str, float], list[int]] = ({}, [])

    def down(self, trained: Tree) -> Mapping[str, Tree]:
        return {"offset": {"n": torch.tensor(10.0, dtype=torch.float64)}}

    def up(self, trained: Tree) -> Mapping[str, Tree]:
        return {name: {"n": torch.zeros((), dtype=torch.float64)} for name in ("most", "mean")}

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        steps = list(batches["train"])
        reply, state, metrics = self.local_update(model, state, {"train": steps}, loss, local)
        count = sum(torch.as_tensor(batch.size, dtype=torch.float64) for batch in steps) + payload["offset"]["n"]
        return reply, state, metrics, {"most": {"n": torch.as_tensor(count)}, "mean": {"n": torch.as_tensor(count)}}

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        numbers = {name: float(tree["n"]) for name, tree in pooled.payload.items()}
        type(self).got = numbers, [client["num-examples"] for client in pooled.clients]
        return super().payload_step(model, pooled, server_round)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_server_gets_what_the_pools_of_the_payload_say(quadratics: Any, engine: str) -> None:
    # Clients of 1 and 3 samples send 10 + 1 and 10 + 3: the largest is 13, the mean by samples (11 + 3 * 13) / 4.
    federation = quadratics([(1, 0), (1, 1)], copies=[1, 3])
    federation.train(Counts(), {"local.lr": 0.1, "local.batch_size": 1}, engine=engine, block_size=1)
    assert Counts.got == ({"most": 13.0, "mean": 12.5}, [3, 1])
