"""Local training without communication, by hand: the clients' models, the global one, bytes, and what is evaluated."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.local_only import LocalOnly


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str) -> None:
    # Losses (w - 4)^2 / 2 and 2 (w + 1)^2 / 2 from w = 0; two steps with lr 1/4 a round.
    # Client 1 keeps 3/4 of its distance from 4 in each of four steps: 4 - 4 (3/4)^4 = 175/64.
    # Client 2 keeps 1/2 of that from -1: -1 + (1/2)^4 = -15/16.
    federation, strategy = quadratics([(1, 4), (2, -1)]), LocalOnly()
    trained = federation.train(strategy, {"local.lr": 0.25, "local.steps": 2}, rounds=2, engine=engine)
    assert [float(trained.states[k]["home::w"]) for k in (0, 1)] == pytest.approx([175 / 64, -15 / 16], rel=1e-12)
    assert tree.digest(trained.model) == tree.digest(federation.loss.initial())
    for row in trained.rows[1:]:
        assert (row["bytes_down"], row["bytes_up"], row["update_norm"], row["completed"]) == (0, 0, 0, 2)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_some_clients_agree_with_a_plain_loop_and_their_own_models_are_evaluated(
    smooth: Any, batch_of: Any, engine: str
) -> None:
    strategy = LocalOnly()
    strategy.cohort = 2
    settings = {"local.lr": 0.3, "local.steps": 3, "local.batch_size": 0}
    trained = smooth.train(strategy, settings, rounds=3, engine=engine)
    visits = [k for kind, _, k in trained.answered if kind == "train"]
    assert 2 < len(set(visits)) < 6
    for k in set(visits):
        rows = torch.as_tensor(smooth.partition.client(k))
        batch = batch_of(smooth.loss.task.train["x"][rows], smooth.loss.task.train["y"][rows])
        w = smooth.loss.initial()
        for _ in range(3 * visits.count(k)):
            grads, _, _ = smooth.loss.gradient(w, batch)
            w = {n: x - 0.3 * grads[n] for n, x in w.items()}
        assert trained.states[k].keys() == {f"home::{n}" for n in w}
        for n, x in w.items():
            torch.testing.assert_close(trained.states[k][f"home::{n}"], x, rtol=0, atol=1e-12)
    assert tree.digest(trained.model) == tree.digest(smooth.loss.initial())
