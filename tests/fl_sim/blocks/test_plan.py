"""Blocks: how a round's messages are cut and padded, and how little memory a client costs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients.app import make_app
from fl_sim import Partition, from_arrays, rng
from fl_sim.blocks.learner import Learner, Settings, local_settings
from fl_sim.blocks.padding import pad, padded_batches, plain_batches
from fl_sim.blocks.plan import BlockPlan, plan_blocks
from fl_sim.blocks.resolve import Job, resolve
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import LocalRule

SIZES = [3, 10, 1, 7]
BASE: dict[str, Any] = {"seed": 0, "server-round": 1, "local.batch_size": 4}


@pytest.fixture(scope="module")
def learner() -> Learner:
    x, y = np.arange(21.0).reshape(21, 1), np.arange(21) % 2
    loss = Loss(torch.nn.Linear(1, 2), from_arrays(x, y, x_test=x, y_test=y))
    order = rng.permutation(5, 21)  # a client's samples lie anywhere
    return make_app(loss, Partition.of(np.split(order, np.cumsum(SIZES)[:-1]))).learner


def plans_of(learner: Learner, settings: list[dict[str, Any]], size: int = 16) -> list[BlockPlan]:
    return plan_blocks(learner, "train", [(i, i % 4, {**BASE, **s}) for i, s in enumerate(settings)], {}, size)


def jobs_of(learner: Learner, settings: list[dict[str, Any]]) -> list[Job]:
    """In the order of positions."""
    jobs = [job for plan in plans_of(learner, settings) for job in resolve(plan, learner, {})[0].jobs]
    return sorted(jobs, key=lambda job: job.position)


def test_blocks_are_cut_by_steps_descending_then_position(learner: Learner) -> None:
    # Batches of 4: clients of 3, 10, 1, 7 samples take 1, 3, 1, 2 steps.
    assert [job.steps for job in jobs_of(learner, [{}] * 4)] == [1, 3, 1, 2]
    for size, expected in [
        (1, [[1], [3], [0], [2]]),
        (2, [[1, 3], [0, 2]]),
        (3, [[1, 3], [0, 2]]),
        (99, [[1, 3, 0, 2]]),
    ]:
        plans = plans_of(learner, [{}] * 4, size)
        assert [[order.position for order in plan.orders] for plan in plans] == expected
        assert [plan.number for plan in plans] == list(range(len(plans)))
        assert sum(plan.steps for plan in plans) == 7


def test_clients_with_other_settings_train_in_another_block_and_stragglers_with_the_rest(learner: Learner) -> None:
    plans = plans_of(learner, [{}, {"system.work": 0.5}, {"local.lr": 0.5}, {}])
    assert [[order.position for order in plan.orders] for plan in plans] == [
        [1, 3, 0],
        [2],
    ]  # 3 steps by half: 2, as client 3's
    blocks = [resolve(plan, learner, {})[0] for plan in plans]
    assert [block.local.lr for block in blocks] == [0.1, 0.5]
    for plan, block in zip(plans, blocks, strict=True):  # the planned steps are those that are trained
        assert [order.steps for order in plan.orders] == [job.steps for job in block.jobs]


def test_messages_that_share_their_settings_are_cut_as_those_that_repeat_them(learner: Learner) -> None:
    orders = [(i, i % 4, BASE) for i in range(8)]
    assert plan_blocks(learner, "train", orders, {}, 3) == plan_blocks(
        learner, "train", [(p, c, dict(s)) for p, c, s in orders], {}, 3
    )


def test_a_block_holds_the_states_of_its_own_clients(learner: Learner) -> None:
    states = {c: {"s": torch.tensor(float(c))} for c in (1, 2)}
    plans = plan_blocks(learner, "train", [(i, i, BASE) for i in range(4)], states, 2)
    assert [set(plan.states) for plan in plans] == [{1}, {2}]
    assert [float(job.state["s"]) for plan in plans for job in resolve(plan, learner, {})[0].jobs if job.state] == [
        1.0,
        2.0,
    ]


@pytest.mark.parametrize("work", [0.05, 1 / 3, 0.5, 2 / 3, 0.95, 1.0])
def test_partial_work_is_the_first_steps_rounded_up_and_never_none(learner: Learner, work: float) -> None:
    whole, part = (jobs_of(learner, [{"local.epochs": 3, **s}] * 4) for s in ({}, {"system.work": work}))
    for full, some in zip(whole, part, strict=True):
        assert some.steps == max(1, math.ceil(round(work * full.steps, 9))) <= full.steps
        assert all(np.array_equal(a, b) for a, b in zip(some.streams["train"], full.streams["train"], strict=False))


def test_clients_take_their_own_epochs_in_turn(learner: Learner) -> None:
    # Steps of a pass are 1, 3, 1, 2; clients 0 and 3 make two passes, client 1 one, client 2 three.
    plans = plans_of(learner, [{"local.epochs_of": "2,1,3"}] * 4)
    assert [[(o.position, o.steps) for o in plan.orders] for plan in plans] == [[(3, 4), (1, 3), (2, 3), (0, 2)]]
    found = jobs_of(learner, [{"local.epochs_of": "2,1,3"}] * 4)
    for job, epochs in zip(found, (2, 1, 3, 2), strict=True):
        alone = jobs_of(learner, [{"local.epochs": epochs}] * 4)[job.position]
        assert job.steps == alone.steps and all(map(np.array_equal, job.streams["train"], alone.streams["train"]))


def test_clients_of_one_size_take_their_own_epochs_too(learner: Learner) -> None:
    equal = make_app(learner.loss, Partition.of(np.split(np.arange(20), 5))).learner  # five clients of one size
    orders = [(c, c, {**BASE, "local.epochs_of": "1,4"}) for c in range(5)]
    [plan] = plan_blocks(equal, "train", orders, {}, 16)
    jobs = resolve(plan, equal, {})[0].jobs
    assert [(job.client, job.steps) for job in jobs] == [(1, 4), (3, 4), (0, 1), (2, 1), (4, 1)]
    assert [order.steps for order in plan.orders] == [job.steps for job in jobs]


def test_settings_of_a_message_become_local_ones_at_the_rate_of_the_round() -> None:
    message = {"local.lr": 1.0, "local.lr_schedule": "step", "local.epochs": 3, "rounds": 5, "strategy.mu": 1.0}
    assert [local_settings(message, r).lr for r in (1, 2, 3, 4, 5)] == [1.0, 1.0, 0.1, 0.01, 0.01]
    local = local_settings(message, 3)
    assert (local.epochs, local.lr_schedule) == (3, "constant")  # resolved: resolving again gives the same rate


def test_padding_is_on_both_axes_with_masks(learner: Learner) -> None:
    jobs = jobs_of(learner, [{}] * 4)
    padded = pad(jobs, "train", learner.partition, torch.device("cpu"))
    assert padded.index.shape == padded.mask.shape == (4, 3, 4) and padded.words.shape == (4, 3, 2)
    assert padded.mask.sum((1, 2)).tolist() == SIZES
    assert padded.mask.any(2).sum(1).tolist() == [1, 3, 1, 2]
    assert padded.full == (False, False, False) and padded.active == (True, False, False)
    assert padded.samples == sum(SIZES)
    two = pad([jobs[1], jobs[3]], "train", learner.partition, torch.device("cpu"))
    assert two.full == (True, False, False) and two.active == (
        True,
        True,
        False,
    )  # batches of 4 and 4; 4 and 3; 2 and none


@pytest.mark.parametrize("at_once", [True, False])
def test_padded_batches_hold_the_samples_and_draws_of_plain_ones(
    learner: Learner, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr("fl_sim.blocks.padding.MAX_GATHER_BYTES", 0)
    jobs = jobs_of(learner, [{"local.epochs": 2}] * 4)
    padded = pad(jobs, "train", learner.partition, torch.device("cpu"))
    for c, job in enumerate(jobs):
        mine = list(padded_batches(learner.data, padded.index[c], padded.mask[c], padded.words[c], padded))
        own = list(plain_batches(learner.data, job, "train", learner.partition, torch.device("cpu")))
        assert len(own) == job.steps and len(mine) == 6
        for s, batch in enumerate(mine):
            real = slice(None) if batch.mask is None else batch.mask
            if s < len(own):
                assert torch.equal(batch.data["x"][real], own[s].data["x"]) and torch.equal(batch.words, own[s].words)
                assert own[s].mask is None and own[s].active is None
            assert (batch.active is None or bool(batch.active)) == (s < len(own))
        seen = torch.cat([b.data["x"].flatten() for b in own]).long().tolist()
        assert sorted(seen) == sorted(2 * learner.partition.client(job.client).tolist())  # its own samples, each twice


def test_draws_of_steps_differ_and_do_not_depend_on_the_block(learner: Learner) -> None:
    jobs = jobs_of(learner, [{}] * 4)
    together = pad(jobs, "train", learner.partition, torch.device("cpu")).words
    alone = pad(jobs[1:2], "train", learner.partition, torch.device("cpu")).words
    assert torch.equal(together[1], alone[0])
    assert len({tuple(w) for w in together.reshape(-1, 2).tolist()}) == 12


def test_a_client_is_an_id_and_a_range_and_samples_are_never_copied() -> None:
    n, clients = 200_000, 50_000
    x = torch.zeros(n, 2)
    task = from_arrays(x.numpy(), np.zeros(n, np.int64), x_test=x[:1].numpy(), y_test=np.zeros(1, np.int64), outputs=2)
    partition = Partition.of(np.split(np.arange(n), clients))
    owner = make_app(Loss(torch.nn.Linear(2, 2), task), partition).learner
    assert all(owner.data[k].data_ptr() == task.train[k].data_ptr() for k in owner.data)  # one tensor for all clients
    arrays = (partition.indices, partition.starts, partition.held_out)
    assert sum(a.nbytes for a in arrays) <= 8 * (n + 2 * clients + 1)  # an index a sample, two numbers a client
    assert np.shares_memory(partition.client(7), partition.indices)
    assert vars(partition).keys() == {"indices", "starts", "held_out", "moved", "idle", "filled", "turns"}


def test_work_is_counted_once_for_each_size_and_setting(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule is constructed to draw the batches of clients once, not in each round."""
    asked: list[Any] = []

    def rule(message_type: str, settings: Settings) -> LocalRule:
        asked.append(settings)
        return learner.rule(message_type, settings)

    fresh = replace(learner, rule=rule)
    steps = [[order.steps for order in plans_of(fresh, [{"server-round": n}] * 4)[0].orders] for n in (1, 2, 3)]
    assert steps == [[3, 2, 1, 1]] * 3 and len(asked) == 1
    assert [order.steps for order in plans_of(fresh, [{"local.batch_size": 1}] * 4)[0].orders] == [10, 7, 3, 1]
    assert len(asked) == 2 and replace(fresh, log_drift=True).counted_work == {}
    monkeypatch.setattr("fl_sim.blocks.plan.MOST_KEPT", 2)
    assert plans_of(fresh, [{"local.batch_size": 2}])[0].orders[0].steps == 2 and len(fresh.counted_work) == 1
