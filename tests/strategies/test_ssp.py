"""Bounded staleness: no worker is more than s steps and one ahead; s = 0 is synchronous SGD."""

from collections import Counter
from collections.abc import Sequence

import pytest

from fl_sim.tree import Tree
from strategies.base.asynchronous import Arrived
from strategies.ssp import SSP
from strategies.syncsgd import SyncSGD
from tests.fl_sim.rounds.asynchronous.small_async_federation import CLIENTS, model_of, run
from tests.strategies.test_syncsgd import ALL, SLOW, close


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_ssp_without_slack_is_syncsgd(engine: str) -> None:
    sync = run(SyncSGD(lr=0.4), 3, CLIENTS, engine, settings={**ALL, "strategy": "syncsgd"}, devices=SLOW)
    ssp = run(SSP(lr=0.4, s=0), 3 * CLIENTS, CLIENTS, engine, settings={**ALL, "strategy": "ssp"}, devices=SLOW)
    assert close(model_of(sync), model_of(ssp)) and ssp.rows[-1]["virtual_time"] == 24.0


class Noted(SSP):
    """SSP that notes whose gradients it gets."""

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        WHO.extend(one.client for one in arrived)
        return super().apply(model, arrived, server_round)


WHO: list[int] = []


@pytest.mark.parametrize("s", [1, 3])
def test_no_worker_is_more_than_s_steps_and_one_ahead(s: int) -> None:
    """Whoever has s steps more than the slowest may still begin one; the fast ones do."""
    WHO.clear()
    run(Noted(s=s), 40, 4, settings={**ALL, "strategy": "ssp"}, devices=SLOW)
    done, ahead = Counter(dict.fromkeys(set(WHO), 0)), 0
    for client in WHO:
        done[client] += 1
        ahead = max(ahead, max(done.values()) - min(done.values()))
    assert ahead == s + 1 and len(done) == 4
