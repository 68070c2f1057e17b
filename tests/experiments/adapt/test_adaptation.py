"""Steps on support and what is measured on query, against plain PyTorch in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.adapt.adaptation import How, curve, measured, own_steps, start_of
from fl_sim import Loss, from_arrays, rng
from fl_sim.learning.loss import Batch
from fl_sim.tree import Tree
from strategies.anil import ANIL
from strategies.ditto import Ditto
from strategies.fedavg import FedAvg
from strategies.metasgd import MetaSGD


def federation(network: nn.Module) -> tuple[Loss, Tree, Tree]:
    """(loss, support of 6 samples, query of 4)."""
    x = rng.generator(1).normal(size=(10, 3))
    task = from_arrays(x, np.arange(10) % 2, x_test=x, y_test=np.arange(10) % 2)
    loss = Loss(network, task, torch.float64)
    support, query = ({k: v[rows] for k, v in loss.task.train.items()} for rows in (slice(0, 6), slice(6, 10)))
    return loss, support, query


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_are_those_of_torch_optim(optimizer: str) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    loss, support, query = federation(network)
    found = curve(loss, loss.initial(), support, query, (0, 1, 3), 0.5, optimizer, False)
    theirs, step = copy.deepcopy(network), {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    rule, expected = step(theirs.parameters(), lr=0.5), []  # type: ignore[operator]
    for done in range(4):
        if done in (0, 1, 3):
            expected.append(nn.functional.cross_entropy(theirs(query["x"].double()), query["y"]).item())
        rule.zero_grad()
        nn.functional.cross_entropy(theirs(support["x"].double()), support["y"]).backward()
        rule.step()
    assert [row["loss"] for row in found] == pytest.approx(expected, rel=1e-12)
    assert 0 <= found[0]["accuracy"] <= 1
    with pytest.raises(ValueError, match=r"lr = inf: the loss is (nan|inf) after 3 steps"):
        curve(loss, loss.initial(), support, query, (3,), math.inf, "sgd", False)


def test_alone_each_query_is_normalised_with_the_support() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)).double()
    loss, support, query = federation(network)

    def by_hand(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x.double())

    alone = torch.stack([by_hand(torch.cat([support["x"], query["x"][q : q + 1]]))[-1] for q in range(4)])
    for mode, outputs in ((True, alone), (False, by_hand(query["x"]))):
        expected = float(nn.functional.cross_entropy(outputs, query["y"]))
        assert measured(loss, loss.initial(), support, query, mode)["loss"] == pytest.approx(expected, rel=1e-12)
    assert not math.isclose(measured(loss, loss.initial(), support, query, True)["loss"], expected)


def test_it_starts_from_the_client_s_own_model_where_an_algorithm_makes_one() -> None:
    loss, support, _ = federation(nn.Linear(3, 2))
    model, batch = loss.initial(), Batch(support, rng.words(0))
    assert start_of(FedAvg(), loss)(model, batch) is model
    own = start_of(Ditto(), loss)(model, batch)  # a client that never trained has the global model as its own
    assert all(torch.equal(own[k], model[k]) for k in model)


def test_an_algorithm_adapts_in_its_own_way() -> None:
    """ANIL moves the head alone; Meta-SGD steps by rates o gradient; others take plain steps."""
    torch.manual_seed(0)
    loss, support, _ = federation(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    how, model, batch = How((1,), (0, 1), 0.3, "sgd"), loss.initial(), Batch(support, rng.words(0))
    assert own_steps(FedAvg(), loss, {}, how) is None
    slopes, _, _ = loss.gradient(model, batch)
    rates = {k: torch.rand_like(v) for k, v in model.items()}
    for rule, payload, expected in (
        (ANIL(), {}, {k: model[k] - (0.3 * slopes[k] if k.startswith("2.") else 0.0) for k in model}),
        (MetaSGD(), {"rates": rates}, {k: model[k] - rates[k] * slopes[k] for k in model}),
    ):
        own = own_steps(rule, loss, payload, how)
        assert own is not None and own(model, batch, 0) is model
        for k, v in own(model, batch, 1).items():
            torch.testing.assert_close(v, expected[k], rtol=1e-12, atol=1e-14)
