"""What a codec keeps is in a client's state only where its reply is good."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from experiments.config.recipe_files import make
from experiments.runs.setup import build
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.run_block import run_plan
from fl_sim.wire import records
from strategies.fedavg import FedAvg


@dataclass
class Unmeasured(FedAvg):
    """FedAvg whose clients reply with a good model, and with a loss that is ``lost`` times its own."""

    lost: float = 1.0

    def local_update(self, *args: Any) -> Any:
        new, state, metrics = super().local_update(*args)
        return new, state, {**metrics, "loss": metrics["loss"] * torch.tensor(self.lost)}


@pytest.mark.parametrize(("lost", "fails"), [(1.0, False), (float("nan"), True)])
def test_a_client_that_fails_after_coding_keeps_nothing_of_it(lost: float, fails: bool) -> None:
    given = {"strategy": Unmeasured(lost=lost), "codec": "topk", "clients": 2, "model": "lr", "engine": "loop"}
    setup = build(make(**given))
    settings = setup.strategy.round_settings(1, setup.train_config)  # type: ignore[attr-defined]
    [plan] = plan_blocks(setup.learner, "train", [(c, c, settings) for c in range(2)], {}, 2)
    model = setup.loss.received(records.decode(setup.initial))
    for client in run_plan(plan, model, setup.learner, "loop", 0, None).clients:
        assert bool(client.reason) is fails
        assert any(k.startswith("codec::") for k in client.state) is not fails
