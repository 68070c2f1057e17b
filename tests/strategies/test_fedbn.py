"""FedBN by hand, against plain PyTorch with partial participation, and what clients that have not trained are given."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.learning.loss import Batch, Loss
from strategies.fedavg import FedAvg
from strategies.fedbn import FedBN

WHOLE = {"local.batch_size": 0, "local.steps": 1}


class Shifted(nn.Module):
    """The output w + g z + b, where z is x normalised over the batch, for a shared number w."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.norm = nn.Parameter(torch.zeros(1)), nn.BatchNorm1d(1, eps=1e-30)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.w


def half_squares(outputs: Tensor, batch: Any) -> Tensor:
    return (outputs - batch["y"]).square().sum(1) / 2


def test_two_rounds_by_hand(federation: Any) -> None:
    # Two samples x = m - s, m + s, so that z = -1, 1; y = a + c z. The mean loss is ((w + b - a)^2 + (g - c)^2) / 2.
    # dw = db = w + b - a, dg = g - c; begin with w = b = 0, g = 1; one step with lr 1/4.
    # Client 1: m, s, a, c = 2, 1, 1, 2. Client 2: 4, 3, 3, -1.
    # Round 1. b_1 = w_1 = 1/4, g_1 = 5/4;  b_2 = w_2 = 3/4, g_2 = 1 - 2/4 = 1/2;  w = 1/2.
    # Round 2. w + b_1 - 1 = -1/4: w_1 = 9/16, b_1 = 5/16, g_1 = 5/4 + 3/16 = 23/16.
    #          w + b_2 - 3 = -7/4: w_2 = 15/16, b_2 = 19/16, g_2 = 1/2 - 3/8 = 1/8.   w = 3/4.
    # Statistics, with momentum .1 from 0 and 1, of a batch with the mean m and the unbiased variance 2 s^2, twice:
    # mean .19 m;  variance .81 + .19 * 2 s^2.
    clients = [(np.array([[m - s], [m + s]]), np.array([[a - c], [a + c]]))
               for m, s, a, c in ((2.0, 1.0, 1.0, 2.0), (4.0, 3.0, 3.0, -1.0))]  # fmt: skip
    trained = federation(Shifted(), clients, loss=half_squares).train(FedBN(), {"local.lr": 0.25, **WHOLE}, rounds=2)
    assert float(trained.model["w"]) == pytest.approx(3 / 4, rel=1e-12)
    for client, expected in enumerate(([5 / 16, 23 / 16, 0.38, 0.81 + 0.38], [19 / 16, 1 / 8, 0.76, 0.81 + 3.42])):
        state = trained.states[client]
        names = ("bias", "weight", "running_mean", "running_var")
        assert [float(state[f"home::norm.{k}"]) for k in names] == pytest.approx(expected, rel=1e-12)
    initial = {"norm.weight": 1, "norm.bias": 0, "norm.running_mean": 0, "norm.running_var": 1}
    assert {k: float(trained.model[k]) for k in initial} == initial


def network(norm: nn.Module) -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Linear(4, 2))


def shifted(federation: Any, norm: nn.Module, held_out: float = 0.0) -> Any:
    """Four clients with features of other means and scales."""
    draw = np.random.default_rng(0)
    clients = [(draw.normal(k, k + 1, (n, 3)), draw.integers(0, 2, n)) for k, n in enumerate((8, 12, 16, 20))]
    return federation(network(norm), clients, outputs=2, held_out=held_out)


@pytest.mark.parametrize(("norm", "engine"), [("batch", "loop"), ("group", "loop"), ("group", "vmap")])
def test_three_rounds_of_some_clients_agree_with_plain_pytorch(federation: Any, norm: str, engine: str) -> None:
    def layer() -> nn.Module:
        return nn.BatchNorm1d(4) if norm == "batch" else nn.GroupNorm(2, 4)

    own, strategy = shifted(federation, layer()), FedBN()
    strategy.cohort = 2
    trained = own.train(strategy, {"local.lr": 0.3, "local.batch_size": 0, "local.steps": 3}, rounds=3, engine=engine)

    def fresh() -> nn.Module:
        return network(layer()).double()

    home = {k for k in fresh().state_dict() if k.startswith("1.")}
    world, mine = fresh().state_dict(), {k: {n: fresh().state_dict()[n] for n in home} for k in range(4)}
    visits = [sorted(k for _, number, k in trained.answered if number == t) for t in (1, 2, 3)]
    assert len({tuple(v) for v in visits}) > 1 and max(sum(k in v for v in visits) for k in range(4)) > 1
    for chosen in visits:
        models = []
        for k in chosen:
            module = fresh()
            module.load_state_dict({**world, **mine[k]})
            rows = torch.as_tensor(own.partition.client(k))
            for _ in range(3):
                module.zero_grad()
                outputs = module(own.loss.task.train["x"][rows].double())
                nn.functional.cross_entropy(outputs, own.loss.task.train["y"][rows]).backward()
                for p in module.parameters():
                    p.data -= 0.3 * p.grad
            mine[k] = {n: x.clone() for n, x in module.state_dict().items() if n in home}
            models.append((len(rows), module.state_dict()))
        total = sum(n for n, _ in models)
        world |= {k: sum(n * m[k] for n, m in models) / total for k in world if k not in home}
    for name, value in world.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)
    visited = {k for chosen in visits for k in chosen}
    assert set(trained.states) == visited
    for k in visited:
        for name in home:
            torch.testing.assert_close(trained.states[k][f"home::{name}"], mine[k][name], rtol=0, atol=1e-12)


def batches(x: Tensor, *sizes: int) -> list[Batch]:
    parts = x.split(list(sizes))
    return [Batch({"x": part, "y": torch.zeros(len(part), dtype=torch.int64)}, rng.words(0)) for part in parts]


@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
def test_a_client_that_has_not_trained_is_given_the_statistics_of_its_training_part(
    federation: Any, momentum: float | None
) -> None:
    loss: Loss = shifted(federation, nn.BatchNorm1d(4, momentum=momentum)).loss
    model, draw = loss.initial(), np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(3, 1e-3, (12, 3)))
    hidden = nn.functional.linear(x, model["0.weight"], model["0.bias"])
    model |= {"1.running_mean": model["1.running_mean"] + 5, "1.running_var": model["1.running_var"] * 9}
    one = FedBN().own_model(model, {}, batches(x, 12), loss)
    torch.testing.assert_close(one["1.running_mean"], hidden.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(one["1.running_var"], hidden.var(0), rtol=1e-9, atol=0)
    two = FedBN().own_model(model, {}, batches(x, 8, 4), loss)  # weighted by their samples
    torch.testing.assert_close(two["1.running_mean"], hidden.mean(0), rtol=1e-12, atol=0)
    mean = (8 * hidden[:8].var(0) + 4 * hidden[8:].var(0)) / 12
    torch.testing.assert_close(two["1.running_var"], mean, rtol=1e-9, atol=0)
    assert {k for k in model if not torch.equal(one[k], model[k])} == {"1.running_mean", "1.running_var"}
    trained = FedBN().own_model(model, {"trained": torch.ones((), dtype=torch.bool)}, batches(x, 12), loss)
    assert trained is model or all(torch.equal(trained[k], x) for k, x in model.items())
    none = FedBN().own_model(model, {}, [], loss)  # without training samples there is nothing to estimate them on
    assert all(torch.equal(none[k], x) for k, x in model.items())


def test_unseen_and_unvisited_clients_are_evaluated_with_statistics_of_their_own(federation: Any) -> None:
    own, strategy = shifted(federation, nn.BatchNorm1d(4), held_out=0.5), FedBN()
    strategy.cohort = 1
    settings = {"personalize.steps": 1, "personalize.lr": 0.0}
    trained = own.train(strategy, {"local.lr": 0.1, **WHOLE}, rounds=1, unseen=1, evaluate=settings)
    found = {a.client: a.metrics for a, (kind, _, _) in zip(trained.answers, trained.answered, strict=True)
             if kind == "evaluate"}  # fmt: skip
    [visited] = trained.states
    initial = own.loss.initial()
    for client, metrics in found.items():
        rows = torch.as_tensor(own.partition.client(client))
        size, _ = own.partition.sizes(client)
        x, y = own.loss.task.train["x"][rows].double(), own.loss.task.train["y"][rows]
        module = network(nn.BatchNorm1d(4)).double()
        home = {k: trained.states[visited].get(f"home::{k}", x) if client == visited else initial[k]
                for k, x in initial.items() if k.startswith("1.")}  # fmt: skip
        module.load_state_dict({**trained.model, **home})
        if client != visited:
            module[1].momentum = 1.0
            module.train()(x[:size])
        with torch.no_grad():
            expected = nn.functional.cross_entropy(module.eval()(x[size:]), y[size:])
        assert metrics["loss_before"] == pytest.approx(float(expected), rel=1e-9)
    assert set(found) == {0, 1, 2, 3} and trained.rows[-1]["unseen_clients"] == 1


def test_bytes_count_what_travels(federation: Any) -> None:
    own = shifted(federation, nn.BatchNorm1d(4))
    rows = [own.train(strategy, {"local.lr": 0.1, **WHOLE}).rows[-1] for strategy in (FedAvg(), FedBN())]
    norm = 4 * (4 * 4 * 8 + 8)  # of four clients: weight, bias, mean and variance of four channels, and a counter
    for column in ("bytes_down", "bytes_up"):
        assert rows[0][column] - rows[1][column] == norm


def test_a_network_without_normalisation_is_refused(smooth: Any) -> None:
    with pytest.raises(ConfigError, match="strategy.name = 'fedbn': the network has no normalisation layer"):
        smooth.train(FedBN(), {"local.lr": 0.1, **WHOLE})


class Forgets(FedBN):
    """Its server step leaves out a leaf that travels."""

    def server_step(self, model: Any, pooled: Any, server_round: int) -> Any:
        return {k: x for k, x in pooled.items() if k != "0.bias"}


def test_a_server_step_that_leaves_out_a_leaf_fails_the_round(federation: Any) -> None:
    """The old value of that leaf must not stand in for it, as it does for those that stay with the clients."""
    clients = [(np.ones((4, 3)), np.zeros((4, 2)))] * 2
    with pytest.raises(RoundFailed, match="0.bias"):
        federation(network(nn.GroupNorm(2, 4)), clients, loss=half_squares).train(
            Forgets(), {"local.lr": 0.25, **WHOLE}
        )
