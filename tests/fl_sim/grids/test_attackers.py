"""Malicious clients of a round: who they are, what the strategy gets, on every engine and in blocks of every size.

A client's update is (x, x^2) of its only sample x, so that what malicious clients send is known by hand.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.app import make_app
from clients.attacks.alie import LittleIsEnough
from clients.attacks.ipm import InnerProduct
from clients.attacks.label_flip import LabelFlip
from clients.attacks.noise import Noise
from clients.attacks.sign_flip import SignFlip
from fl_sim import Batch, Callback, Local, Loss, Partition, Run, SimulationGrid, from_arrays, rng, run_rounds
from fl_sim.blocks.attack import Attack
from fl_sim.engines.results import BlockResult
from fl_sim.grids.attackers import Attackers
from fl_sim.learning.rule import Draw, Metrics
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.pool import PoolingStrategy
from strategies.base.naming import name_of
from strategies.fedavg import FedAvg

CLIENTS = 5
X = torch.tensor([1.0, 2.0, 4.0, 3.0, 7.0], dtype=torch.float64)
LABELS = [0, 1, 0, 1, 1]
UPDATES = torch.stack([X, X * X], 1)
NAME = "weight"


class Squares(FedAvg):
    """No paper: a client's update is (x, x^2) of its sample, its loss its label."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The update of the first batch, of one sample."""
        batch = next(iter(batches["train"]))
        x, y = batch.data["x"].reshape(()), batch.data["y"].reshape(()).to(loss.dtype)
        update = torch.stack([x, x * x]).reshape(2, 1)
        return self.reply(model[NAME], update), {"seen": x}, {"loss": y}

    def reply(self, weight: Tensor, update: Tensor) -> Tree:
        """The new model."""
        return {NAME: weight + update}


class Gradients(Squares):
    """No paper: the same, with the update itself as the reply."""

    reply_kind = "update"

    def reply(self, weight: Tensor, update: Tensor) -> Tree:
        """The update."""
        return {NAME: update}

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """The model plus the mean update."""
        return {NAME: model[NAME] + pooled[NAME]}


class OneByOne(Squares):
    """No paper: the same, with one reply a client."""

    one_reply_a_client = True


def trained(
    strategy: PoolingStrategy, attack: Attack | None, engine: str = "loop", block_size: int = 2, share: float = 0.4
) -> tuple[Tensor, SimulationGrid, list[BlockResult]]:
    """(the mean update of one round of five clients, the grid, its results by block)."""
    with rng.keyed_globals(0):
        task = from_arrays(X.numpy()[:, None], LABELS, x_test=X.numpy()[:1, None], y_test=LABELS[:1], outputs=2)
        loss = Loss(nn.Linear(1, 2, bias=False), task, torch.float64)
    app = make_app(loss, Partition.of(np.split(np.arange(CLIENTS), CLIENTS)), {name_of(type(strategy)): type(strategy)})
    grid = SimulationGrid(app, CLIENTS, block_size=block_size, engine=engine)
    grid.attackers = None if attack is None else Attackers(attack, share, seed=0)
    start, blocks = loss.initial(), list[BlockResult]()
    result = run_rounds(
        strategy, grid, records.encode(start), 1, train_config=records.config({"rounds": 1}), callbacks=[Blocks(blocks)]
    )
    return (records.decode(result.arrays)[NAME] - start[NAME]).flatten(), grid, blocks


class Blocks(Callback):
    """Keeps the results of blocks."""

    def __init__(self, found: list[BlockResult]) -> None:
        self.found = found

    def on_block(self, run: Run, result: BlockResult) -> None:
        """Keep one."""
        self.found.append(result)


MALICIOUS = sorted(Attackers(SignFlip(), 0.4, 0).among(range(CLIENTS)))
HONEST = [c for c in range(CLIENTS) if c not in MALICIOUS]


def mean_with(sent: Tensor) -> Tensor:
    """The mean of the honest updates, and of what malicious clients sent: (2,) each, or one for all."""
    every = UPDATES.clone()
    every[MALICIOUS] = sent
    return every.mean(0)


EXPECTED = {
    SignFlip(): mean_with(-5 * UPDATES[MALICIOUS]),
    InnerProduct(): mean_with(-10 * UPDATES[HONEST].mean(0)),
    LittleIsEnough(): mean_with(UPDATES[HONEST].mean(0) - 1.5 * UPDATES[HONEST].var(0, correction=0).sqrt()),
    LabelFlip(): mean_with(UPDATES[MALICIOUS]),
}


def test_exactly_the_share_of_a_round_s_clients_is_malicious_by_key() -> None:
    attackers = Attackers(SignFlip(), 0.2, seed=3)
    for count in (1, 2, 3, 5, 8, 10, 13):
        assert len(attackers.among(range(100, 100 + count))) == round(0.2 * count)
    every = attackers.among(range(50))
    assert every == attackers.among(reversed(range(50))) != Attackers(SignFlip(), 0.2, seed=4).among(range(50))
    part = range(0, 50, 2)  # of a part of the clients those with the lowest ranks, so first those of all clients
    assert len(attackers.among(part)) == 5
    assert attackers.among(part) <= every or every & set(part) <= attackers.among(part)


@pytest.mark.parametrize("attack", EXPECTED, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("strategy", [Squares, Gradients, OneByOne])
def test_a_round_under_attack_by_hand(attack: Attack, strategy: type[Squares]) -> None:
    assert len(MALICIOUS) == 2
    mean, grid, blocks = trained(strategy(), attack)
    np.testing.assert_allclose(mean, EXPECTED[attack], rtol=1e-14)
    assert all((b.partial is None) == (attack.colludes or strategy is OneByOne) for b in blocks)
    states = {c: grid.states[c]["seen"] for c in range(CLIENTS)}
    assert all(float(states[c]) == float(X[c]) for c in states)  # what they learnt is what they trained


@pytest.mark.parametrize("attack", [*EXPECTED, Noise()], ids=lambda attack: type(attack).__name__)
def test_engines_and_blocks_do_not_matter(attack: Attack) -> None:
    first, _, _ = trained(Squares(), attack)
    for engine, block_size in (("vmap", 1), ("vmap", 5), ("loop", 3)):
        np.testing.assert_allclose(trained(Squares(), attack, engine, block_size)[0], first, rtol=1e-13)


def test_noise_is_that_of_the_client_and_round() -> None:
    sent = torch.stack([Noise().update({NAME: UPDATES[c]}, Draw(0, 1, c))[NAME] for c in MALICIOUS])
    np.testing.assert_allclose(trained(Squares(), Noise())[0], mean_with(sent), rtol=1e-13)


def test_flipped_labels_are_seen_in_training_alone() -> None:
    _, grid, blocks = trained(Squares(), LabelFlip(), "vmap")
    seen = {c.client: c.metrics["loss"] for b in blocks for c in b.clients}
    assert seen == {c: 1 - LABELS[c] if c in MALICIOUS else LABELS[c] for c in range(CLIENTS)}
    assert grid.learner is not None
    assert grid.learner.data["y"].tolist() == grid.learner.loss.task.train["y"].tolist() == LABELS


def test_without_an_attack_blocks_and_bits_are_the_same() -> None:
    plain, _, blocks = trained(Squares(), None)
    assert torch.equal(plain, trained(Squares(), SignFlip(), share=0.0)[0])
    assert [b.plan.attack for b in blocks] == [None] * 3


def test_an_update_norm_is_that_of_what_was_sent() -> None:
    for attack, sent in ((SignFlip(factor=2.0), -2 * UPDATES), (InnerProduct(), -10 * UPDATES[HONEST].mean(0))):
        _, _, blocks = trained(Squares(), attack)
        norms = {c.client: c.metrics["update_norm"] for b in blocks for c in b.clients}
        every = sent if sent.ndim == 2 else sent.expand(CLIENTS, 2)
        right = {c: float((every if c in MALICIOUS else UPDATES)[c].norm()) for c in range(CLIENTS)}
        assert norms == pytest.approx(right, rel=1e-14)
