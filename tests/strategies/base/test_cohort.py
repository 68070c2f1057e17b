"""Stragglers: which clients they are, how much work they do, and how it is counted."""

from typing import Any

import pytest

from clients.app import make_app
from fl_sim import SimulationGrid, registry, rng
from fl_sim.wire import records
from strategies.base.cohort import stragglers
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx

STRATEGIES = list(registry.names("strategies", "strategy").values())
CHOSEN = list(range(10, 20))


def drawn(share: float, server_round: int = 1, seed: int = 0, **settings: Any) -> dict[int, float]:
    return stragglers(CHOSEN, seed, server_round, {"system.stragglers": share, "local.epochs": 20, **settings})


@pytest.mark.parametrize("share, count", [(0.0, 0), (0.04, 0), (0.1, 1), (0.34, 3), (0.5, 5), (0.9, 9), (0.99, 9)])
def test_their_number_is_exact_and_one_client_finishes(share: float, count: int) -> None:
    for server_round in range(1, 6):
        assert len(drawn(share, server_round)) == count  # of 10: rounded, and at most 9


def test_they_are_the_same_for_every_strategy(targets: Any) -> None:
    many, settings = targets([[float(c)] * 6 for c in range(6)]), {"local.epochs": 5, "system.stragglers": 0.5}
    for cls in STRATEGIES:
        strategy, grid = cls(), SimulationGrid(make_app(many.loss, many.partition), 6)
        sent = strategy.configure_train(1, records.encode(many.loss.initial()), records.config(settings), grid)
        work = {m.metadata.dst_node_id - 2: m.content["config"].get("system.work") for m in sent}
        slow = stragglers(range(6), 0, 1, settings)
        if strategy.partial_work == "drop":
            assert work == {c: None for c in range(6) if c not in slow} and list(strategy.dropped) == sorted(slow)
        else:
            assert work == {c: slow.get(c) for c in range(6)}


def test_they_are_others_in_another_round_or_with_another_seed() -> None:
    assert drawn(0.5) != drawn(0.5, server_round=2) and drawn(0.5) != drawn(0.5, seed=1)


def test_a_clients_draw_does_not_depend_on_who_else_was_chosen() -> None:
    settings = {"system.stragglers": 0.99, "local.epochs": 20}
    all_of_them, some = stragglers(CHOSEN, 0, 1, settings), stragglers(CHOSEN[:4], 0, 1, settings)
    both = set(all_of_them) & set(some)
    assert len(both) >= 2 and all(all_of_them[c] == some[c] for c in both)


def test_the_share_of_work_is_a_uniform_number_of_whole_epochs_but_not_all() -> None:
    works = [work for r in range(1, 200) for work in drawn(0.9, r).values()]
    counts = {j: sum(round(work * 20) == j for work in works) for j in range(1, 20)}
    assert sum(counts.values()) == len(works) == 199 * 9 and all(
        abs(work * 20 - round(work * 20)) < 1e-12 for work in works
    )
    # 1791 draws over 19 values: 94.3 each; a standard deviation is 9.4, so 5 of them is 47
    assert all(abs(count - 1791 / 19) < 47 for count in counts.values())
    assert {round(w * 3) for w in drawn(0.9, **{"local.epochs": 3}).values()} <= {1, 2}
    assert all(
        abs(w * 7 - round(w * 7)) < 1e-12 for w in drawn(0.9, **{"local.steps": 7}).values()
    )  # steps go before epochs


@pytest.mark.parametrize("cls", [cls for cls in STRATEGIES if cls.partial_work == "keep"])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_kept_work_counts_the_steps_that_were_taken(targets: Any, cls: Any, engine: str) -> None:
    many, strategy = targets([[float(c)] * 6 for c in range(6)]), cls()
    settings = {
        "local.epochs": 5,
        "local.batch_size": 2,
        "local.lr": 0.01,
        "system.stragglers": 0.5,
    }  # 15 steps a client
    steps = {answer.client: answer.steps for answer in many.train(strategy, settings, engine=engine).answers}
    slow = stragglers(range(6), 0, 1, settings)
    assert len(slow) == 3 and steps == {c: round(15 * slow.get(c, 1.0)) for c in range(6)}


def test_fedavg_drops_them_and_fedprox_keeps_what_they_did(targets: Any) -> None:
    many = targets([[float(c)] * 6 for c in range(10)])
    settings = {
        "local.epochs": 5,
        "local.batch_size": 2,
        "local.lr": 0.01,
        "system.stragglers": 0.6,
    }  # 15 steps a client
    dropping, keeping = FedAvg(), FedProx(mu=0.0)
    dropped, kept = many.train(dropping, settings), many.train(keeping, settings)
    slow = stragglers(range(10), 0, 1, settings)
    assert len(slow) == 6 and sorted(dropping.dropped) == sorted(slow) and list(keeping.dropped) == []
    assert {a.client: a.steps for a in dropped.answers} == {c: 15 for c in range(10) if c not in slow}
    # j of 5 epochs are 3 j steps
    assert {a.client: a.steps for a in kept.answers} == {c: round(15 * slow.get(c, 1.0)) for c in range(10)}
    assert (dropped.rows[1]["clients"], dropped.rows[1]["dropped"], dropped.rows[1]["completed"]) == (10, 6, 4)
    assert (kept.rows[1]["clients"], kept.rows[1]["dropped"], kept.rows[1]["completed"]) == (10, 0, 10)


def test_partial_work_is_the_first_part_of_the_whole_work(targets: Any) -> None:
    # One client of two is a straggler; w0 = 0, target 1, lr 1/4: after s steps w = 1 - 2^-s.
    # The other has target 0 and stays at 0.
    both = targets([[1.0], [0.0]])
    settings = {"local.epochs": 4, "local.lr": 0.25, "system.stragglers": 0.5}
    strategy = FedProx(mu=0.0)
    strategy.seed = next(
        s for s in range(99) if min(range(2), key=lambda c: rng.key(s, "straggler", 1, c)) == 0
    )  # client 0 is the straggler
    trained = both.train(strategy, settings)
    [work] = stragglers([0, 1], strategy.seed, 1, settings).values()
    steps = round(4 * work)
    assert steps in (1, 2, 3) and trained.model["w"].item() == pytest.approx((1 - 0.5**steps) / 2, rel=1e-12)
