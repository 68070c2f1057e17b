"""Personal evaluation: its numbers by hand, seen and unseen apart, and nothing of it trains the global model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.personalize import Personalize
from fl_sim import registry, tree
from fl_sim.learning.rule import Draw, Sizes
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.base.personal import summarise
from strategies.fedavg import FedAvg
from strategies.fedbn import FedBN
from strategies.fedrep import FedRep
from strategies.local_only import LocalOnly
from strategies.metaoptnet import MetaOptNet
from strategies.r2d2 import R2D2

STILL = {"local.lr": 0.0}
"""Settings of a training that leaves the model as it is."""
# A client: (targets of its training part, of its held-out part).
OTHERS = (FedBN, R2D2, MetaOptNet)
"""Strategies that need a network with normalisation layers, or with a last linear layer."""
CLIENTS = {
    "a": ([4.0, 4.0], [3.0, 3.0, 0.0, 0.0]),
    "b": ([0.0], [0.0, 0.0]),
    "c": ([4.0, 4.0, 4.0], [0.0]),
    "d": ([4.0], [3.0]),
}


def near(outputs: Tensor, batch: Tree) -> Tensor:
    """1.0 where the target is hit to 1/2: an accuracy for regressions."""
    return (outputs - batch["y"]).abs().flatten(1).amax(1).lt(0.5).to(outputs.dtype)


def with_held_out(targets: Any, clients: list[tuple[list[float], list[float]]], **task: Any) -> Any:
    federation = targets([train + held for train, held in clients], **task)
    return replace(
        federation, partition=replace(federation.partition, held_out=np.array([len(held) for _, held in clients]))
    )


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_numbers_by_hand(targets: Any, engine: str) -> None:
    # w = 0, l = (w - t)^2, lr 1/4: a step halves the distance to t; after two steps w = 3/4 t: 3 for a, c, d, 0 for b.
    #               a           b       c      d (unseen)
    # hits before   2 of 4      2 of 2  1 of 1  0 of 1
    # hits after    2 of 4      2 of 2  0 of 1  1 of 1
    # loss before   4.5         0       0       9
    # loss after    (0+0+9+9)/4 0       9       0
    everyone = with_held_out(targets, list(CLIENTS.values()), metrics={"accuracy": near})
    personal = {"personalize.steps": 2, "personalize.lr": 0.25, "personalize.batch_size": 0}
    row = everyone.train(FedAvg(), STILL, unseen=1, evaluate=personal, engine=engine).rows[-1]
    expected = {
        "personal_clients": 3,
        "personal_accuracy_before": 2.5 / 3,
        "personal_accuracy": 0.5,
        "personal_accuracy_weighted": 4 / 7,  # (2 + 2 + 0) hits of 7
        "personal_accuracy_p10": 0.1,  # of 0, 1/2, 1: a fifth of the way from the first to the second
        "personal_accuracy_worst": 0.0,
        "personal_share_worse": 1 / 3,  # c alone
        "personal_loss_before": 1.5,
        "personal_loss": 4.5,
        "unseen_clients": 1,
        "unseen_accuracy_before": 0.0,
        "unseen_accuracy": 1.0,
        "unseen_accuracy_weighted": 1.0,
        "unseen_accuracy_p10": 1.0,
        "unseen_accuracy_worst": 1.0,
        "unseen_share_worse": 0.0,
        "unseen_loss_before": 9.0,
        "unseen_loss": 0.0,
    }
    assert {k: v for k, v in row.items() if k.startswith(("personal_", "unseen_"))} == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_the_requested_number_of_steps_is_taken(targets: Any, steps: int) -> None:
    # One client, t = 1, held-out target 0, w = 0: after k steps of lr 1/4 w = 1 - 2^-k, the held-out loss its square.
    one = with_held_out(targets, [([1.0, 1.0, 1.0], [0.0])])
    trained = one.train(
        FedAvg(), STILL, evaluate={"personalize.steps": steps, "personalize.lr": 0.25, "personalize.batch_size": 2}
    )
    assert trained.rows[-1]["personal_loss"] == pytest.approx((1 - 0.5**steps) ** 2, rel=1e-12)
    assert trained.rows[-1]["personal_loss_before"] == 0.0
    assert [answer.steps for answer in trained.answers] == [1, steps]  # the round's, the evaluation's


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_fine_tuning_with_adam_is_torch_s(targets: Any, engine: str) -> None:
    """One client, t = 1, held-out target 0, w = 0, l = (w - t)^2: the held-out loss is the square of torch's weight."""
    one = with_held_out(targets, [([1.0, 1.0], [0.0])])
    personal = {"personalize.steps": 5, "personalize.lr": 0.3, "personalize.batch_size": 0}
    trained = one.train(FedAvg(), STILL, evaluate={**personal, "personalize.optimizer": "adam"}, engine=engine)
    w = torch.zeros((), dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([w], lr=0.3)
    for _ in range(5):
        reference.zero_grad()
        ((w - 1) ** 2).backward()
        reference.step()
    assert trained.rows[-1]["personal_loss"] == pytest.approx(w.item() ** 2, rel=1e-12)
    assert trained.rows[-1]["personal_loss"] != pytest.approx((1 - 0.4**5) ** 2, rel=1e-3)  # that of sgd


def test_fine_tuning_never_sees_a_held_out_sample() -> None:
    rule = Personalize(steps=9, lr=0.1, batch_size=4)
    streams = rule.streams(Sizes(10, 3), Local(), Draw(0, 1, 2))
    assert len(streams["train"]) == 9 and set(np.concatenate(streams["train"])) <= set(range(10))
    assert [b.tolist() for b in streams["test"]] == [[10, 11, 12]]
    assert Personalize(0, 0.1, 4).streams(Sizes(10, 3), Local(), Draw(0, 1, 2))["train"] == []


@pytest.mark.parametrize("cls", [cls for cls in registry.names("strategies", "strategy").values() if cls not in OTHERS])
def test_garbage_in_held_out_samples_changes_no_model(targets: Any, cls: Any) -> None:
    """For each strategy, trained with personal evaluation in every round; the network has nothing for OTHERS."""
    personal = {"personalize.steps": 2, "personalize.lr": 0.1, "personalize.every": 1}
    digests, losses, states = [], [], []
    for garbage in (0.0, 1e6):
        clients = [(train, [h + garbage for h in held]) for train, held in CLIENTS.values()]
        trained = with_held_out(targets, clients).train(
            cls(), {"local.lr": 0.05, "local.batch_size": 2}, rounds=3, unseen=1, evaluate=personal
        )
        digests.append([row["digest"] for row in trained.rows])
        losses.append(trained.rows[-1]["personal_loss"])
        states.append({client: tree.digest(state) for client, state in trained.states.items()})
    assert digests[0] == digests[1] and states[0] == states[1] and losses[0] != losses[1]
    assert len(set(digests[0])) == (1 if cls in (LocalOnly, FedRep) else 4)  # one layer: the head


def test_it_happens_in_the_last_round_or_every_few_rounds(targets: Any) -> None:
    def rounds(every: int, steps: int = 1) -> list[int]:
        clients = with_held_out(targets, list(CLIENTS.values()))
        personal = {"personalize.steps": steps, "personalize.lr": 0.1, "personalize.every": every}
        rows = clients.train(FedAvg(), STILL, rounds=5, evaluate=personal).rows
        return [row["round"] for row in rows if "personal_loss" in row]

    assert rounds(0) == [5] and rounds(2) == [2, 4, 5] and rounds(1) == [1, 2, 3, 4, 5] and rounds(1, steps=0) == []


def test_the_number_of_clients_is_limited_and_they_are_the_same_in_each_round(targets: Any) -> None:
    clients = targets([[float(c), 0.0] for c in range(12)], held_out=0.5)
    personal = {"personalize.steps": 1, "personalize.lr": 0.1, "personalize.every": 1, "personalize.clients": 3}
    trained = clients.train(FedAvg(), STILL, rounds=2, unseen=4, evaluate=personal)
    assert (
        [row["personal_clients"] for row in trained.rows[1:]]
        == [row["unseen_clients"] for row in trained.rows[1:]]
        == [3, 3]
    )
    evaluated = [
        sorted(client for kind, n, client in trained.answered if kind == "evaluate" and n == r) for r in (1, 2)
    ]
    assert evaluated[0] == evaluated[1] and len(evaluated[0]) == 6 and sum(c >= 8 for c in evaluated[0]) == 3


def test_accuracies_are_exact_quotients(federation: Any) -> None:
    """Seven clients of 3 to 27 held-out samples, on both engines; over clients of one size they are counts again."""
    draw = np.random.default_rng(0)
    sizes = [6, 14, 18, 22, 26, 34, 54]
    clients = [(draw.normal(size=(n, 2)), draw.integers(0, 2, n)) for n in sizes]
    everyone = federation(torch.nn.Linear(2, 2), clients, torch.float32, held_out=0.5, outputs=2)
    personal = {"personalize.steps": 1, "personalize.lr": 0.1, "personalize.batch_size": 0}
    for engine in ("loop", "vmap"):
        trained = everyone.train(FedAvg(), STILL, evaluate=personal, engine=engine)
        answers = {answer.client: answer.metrics for answer in trained.answers if "held_out" in answer.metrics}
        assert [answers[c]["held_out"] for c in range(7)] == [n // 2 for n in sizes]
        hits = {
            c: {k: round(m[k] * m["held_out"]) for k in ("accuracy", "accuracy_before")} for c, m in answers.items()
        }
        assert all(m[k] == hits[c][k] / m["held_out"] for c, m in answers.items() for k in hits[c])
        total = sum(own["accuracy"] for own in hits.values())
        assert trained.rows[-1]["personal_accuracy_weighted"] == total / sum(n // 2 for n in sizes)


@pytest.mark.parametrize("size", [3, 7, 49, 100])
def test_a_mean_over_clients_of_one_size_is_a_quotient_of_counts(size: int) -> None:
    for total in range(3 * size + 1):
        hits = [min(size, max(0, total - size * c)) for c in range(3)]
        rows = [{"held_out": size, "loss_before": 0.0, "loss": 0.0} for _ in hits]
        rows = [{**row, "accuracy_before": 0.0, "accuracy": h / size} for row, h in zip(rows, hits, strict=True)]
        numbers = summarise("personal", rows)
        assert numbers["personal_accuracy"] == numbers["personal_accuracy_weighted"] == total / (3 * size)


def test_numbers_of_a_user_s_own_accuracy_are_averaged_as_floats() -> None:
    shares = [np.float32(1 / 3).item(), np.float32(0.7).item()]
    rows = [{"held_out": 3, "loss_before": 0.0, "loss": 0.0, "accuracy_before": a, "accuracy": a} for a in shares]
    numbers = summarise("personal", rows)
    assert numbers["personal_accuracy"] == numbers["personal_accuracy_weighted"] == sum(shares) / 2


def test_a_regression_is_worse_where_its_loss_is() -> None:
    rows = [{"held_out": 1, "loss_before": 1.0, "loss": loss} for loss in (0.5, 2.0, 1.0, 3.0)]
    numbers = summarise("personal", rows)
    assert numbers == {
        "personal_clients": 4,
        "personal_share_worse": 0.5,
        "personal_loss_before": 1.0,
        "personal_loss": 1.625,
    }
    assert summarise("personal", []) == {}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_client_without_held_out_samples_does_not_count(targets: Any, engine: str) -> None:
    # a: before 1, after one step of lr 1/2 (w = 1) 0; the lone sample of b has nothing to be tested on
    two = with_held_out(targets, [([1.0, 1.0], [1.0]), ([5.0], [])])
    personal = {"personalize.steps": 1, "personalize.lr": 0.5, "personalize.batch_size": 0}
    row = two.train(FedAvg(), STILL, evaluate=personal, engine=engine).rows[-1]
    assert (row["personal_clients"], row["personal_loss_before"], row["personal_loss"]) == (1, 1.0, 0.0)


def test_evaluation_is_without_dropout_and_leaves_the_model_alone(federation: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.9), torch.nn.Linear(8, 2))
    draw = np.random.default_rng(0)
    two = federation(module, [(draw.normal(size=(8, 3)), draw.integers(0, 2, 8)) for _ in range(2)], held_out=0.5)
    start = two.loss.initial()
    trained = two.train(FedAvg(), {"local.lr": 0.0}, evaluate={"personalize.steps": 3, "personalize.lr": 0.0})
    row = trained.rows[-1]
    assert row["personal_loss"] == row["personal_loss_before"]  # lr 0: were dropout on, two draws would differ
    assert tree.digest(trained.model) == tree.digest(start)
