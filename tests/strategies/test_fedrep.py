"""FedRep by hand, against a plain loop in torch, and its limits: FedAvg and local training."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fl_sim import squared_error, tree
from fl_sim.learning.settings import Local
from fl_sim.local import Draw, Sizes
from strategies.fedavg import FedAvg
from strategies.fedrep import FedRep
from strategies.local_only import LocalOnly


class Number(nn.Module):
    """A layer of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))


class Sum(nn.Module):
    """The output b + h, whatever x is; with half the squared error the gradient of each weight is b + h - y."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Number(), Number()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.body.w + self.head.w).expand(len(x), 1)


@pytest.fixture
def sums(federation: Any) -> Any:
    """Two clients, with y = 4 and y = -2."""
    clients = [([[0.0]], [[4.0]]), ([[0.0]], [[-2.0]])]
    return federation(Sum(), clients, loss=lambda outputs, batch: squared_error(outputs, batch) / 2)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize(
    "numbers, rounds, shared, kept",
    [
        # One step of 1/2 a part from b = h = 0. Client 1: h = 0 + 4/2 = 2, then b = 0 - (2 - 4)/2 = 1.
        # Client 2: h = -1, then b = 0 - (-1 + 2)/2 = -1/2. Mean b = 1/4.
        ({}, 1, 1 / 4, [2, -1]),
        # Round 2 from b = 1/4. Client 1: h = 2 - (9/4 - 4)/2 = 23/8; b = 1/4 - (25/8 - 4)/2 = 11/16.
        # Client 2: h = -1 - (-3/4 + 2)/2 = -13/8; b = 1/4 - (-11/8 + 2)/2 = -1/16. Mean b = 5/16.
        ({}, 2, 5 / 16, [23 / 8, -13 / 8]),
        # The body first: b = 2, h = 0 - (2 - 4)/2 = 1; b = -1, h = -1/2. Mean b = 1/2.
        ({"first": "body"}, 1, 1 / 2, [1, -1 / 2]),
        # Both at once (FedPer): b = h = 2; b = h = -1.
        ({"first": "together"}, 1, 1 / 2, [2, -1]),
        # The head is shared: h = 2 and -1, mean 1/2; the bodies 1 and -1/2 stay.
        ({"shared": "head"}, 1, 1 / 2, [1, -1 / 2]),
        # Three passes over the head: h = 2, 3, 7/2; b = 0 - (7/2 - 4)/2 = 1/4. Client 2: minus half of that.
        ({"head_epochs": 3}, 1, 1 / 16, [7 / 2, -7 / 4]),
    ],
)
def test_a_sum_of_two_weights_by_hand(
    sums: Any, engine: str, numbers: dict[str, Any], rounds: int, shared: float, kept: list[float]
) -> None:
    trained = sums.train(FedRep(**numbers), {"local.lr": 0.5, "local.steps": 1}, rounds=rounds, engine=engine)
    own, other = ("body", "head") if numbers.get("shared") == "head" else ("head", "body")
    assert float(trained.model[f"{other}.w"]) == pytest.approx(shared, rel=1e-12)
    assert [float(trained.states[k][f"home::{own}.w"]) for k in (0, 1)] == pytest.approx(kept, rel=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_of_a_network_agree_with_a_plain_loop(smooth: Any, engine: str) -> None:
    settings = {"local.lr": 0.2, "local.steps": 3, "local.batch_size": 0}
    trained = smooth.train(FedRep(), settings, rounds=2, engine=engine)
    network, w = copy.deepcopy(smooth.loss.training), smooth.loss.initial()
    heads = {k: {n: x for n, x in w.items() if n.startswith("2.")} for k in range(5)}
    for _ in range(2):
        bodies, sizes = [], []
        for k in range(5):
            rows = torch.as_tensor(smooth.partition.client(k))
            x, y = smooth.loss.task.train["x"][rows].double(), smooth.loss.task.train["y"][rows]
            network.load_state_dict({**w, **heads[k]})
            for part in ("2.", "0."):
                moving = [p for n, p in network.named_parameters() if n.startswith(part)]
                for _ in range(3):
                    grads = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), moving)
                    for p, g in zip(moving, grads, strict=True):
                        p.data -= 0.2 * g
            new = tree.clone(dict(network.named_parameters()))
            bodies, sizes = [*bodies, new], [*sizes, len(rows)]
            heads[k] = {n: v for n, v in new.items() if n in heads[k]}
        mean = {n: sum(s * b[n] for s, b in zip(sizes, bodies, strict=True)) / sum(sizes) for n in w}
        w = {**mean, **{n: w[n] for n in heads[0]}}
    for name, value in w.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)
    for k, head in heads.items():
        for name, value in head.items():
            torch.testing.assert_close(trained.states[k][f"home::{name}"], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", ["head", "body", "together"])
def test_an_empty_head_is_fedavg_and_a_head_of_all_layers_local_training(smooth: Any, first: Any) -> None:
    settings = {"local.lr": 0.2, "local.epochs": 2, "local.batch_size": 4}
    plain, empty = (smooth.train(s, settings, rounds=2) for s in (FedAvg(), FedRep(head="none", first=first)))
    assert tree.digest(plain.model) == tree.digest(empty.model)
    assert plain.rows[-1]["train_loss"] == empty.rows[-1]["train_loss"] and not empty.states
    whole = {**settings, "local.batch_size": 0}  # the order of samples in a batch does not matter
    alone, full = (smooth.train(s, whole, rounds=2) for s in (LocalOnly(), FedRep(head="all", first=first)))
    for k, state in alone.states.items():
        for name, value in state.items():
            torch.testing.assert_close(full.states[k][name], value, rtol=0, atol=1e-12)


def test_the_heads_steps_are_as_many_as_the_body_s_or_passes_of_their_own() -> None:
    local = Local(steps=7, batch_size=5)
    streams = FedRep().streams(Sizes(20, 0), local, Draw(0, 1, 2))
    assert [len(streams[k]) for k in ("train", "head")] == [7, 7]
    assert any((a != b).any() for a, b in zip(streams["train"], streams["head"], strict=True))
    assert len(FedRep(head_epochs=3).streams(Sizes(20, 0), local, Draw(0, 1, 2))["head"]) == 12
    assert set(FedRep(first="together").streams(Sizes(20, 0), local, Draw(0, 1, 2))) == {"train"}
