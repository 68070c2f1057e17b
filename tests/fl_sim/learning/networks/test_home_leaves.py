"""Leaves that stay with their client: what may be named, what a reply must hold, what a failure leaves as it was."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from clients.app import make_app
from fl_sim import SimulationGrid, tree
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks.home_leaves import names_of, note, of_client, taken_out
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base import Strategy, name_of
from strategies.local_only import LocalOnly
from tests.fl_sim.small_federation import federation, network

HEAD = ("2.weight", "2.bias")
SIZES = [4, 9]


class Head(Strategy):
    """No paper: the last layer stays with the client. ``how`` : what goes wrong in its second round."""

    def __init__(self, how: str = "") -> None:
        self.how = how

    def home(self, loss: Loss) -> Sequence[str]:
        return HEAD

    def local_update(self, model: Tree, state: Tree, batches: Any, loss: Loss, local: Any) -> Any:
        new, _, metrics = super().local_update(model, state, batches, loss, local)
        if self.how and "visited" in state:
            bad = {"nan": new[HEAD[0]] * torch.nan, "inf": new[HEAD[0]] + torch.inf, "shape": new[HEAD[0]][None]}
            new = {k: bad.get(self.how, x) if k == HEAD[0] else x for k, x in new.items()}
            new = {k: x for k, x in new.items() if self.how != "lacks" or k != HEAD[1]}
        return new, {} if self.how == "once" and state else {"visited": metrics["loss"]}, metrics


@pytest.fixture(scope="module")
def loss() -> Loss:
    return federation(SIZES, network())[0]


def states_after(strategy: Strategy, engine: str, rounds: int = 2) -> tuple[list[dict[int, Tree]], list[str]]:
    """The states after each round, and the reasons of failures in the last one."""
    loss, partition = federation(SIZES, network(torch.nn.GroupNorm(2, 4)))
    app = make_app(loss, partition, {name_of(type(strategy)): type(strategy)})
    grid, found = SimulationGrid(app, len(SIZES), engine=engine), []
    config = records.config({"local.lr": 0.1, "local.batch_size": 0})
    for number in range(1, rounds + 1):
        sent = strategy.configure_train(number, records.encode(loss.initial()), config, grid)
        replies = list(grid.send_and_receive(sent))
        found.append({c: tree.clone(state) for c, state in grid.states.items()})
    return found, [reply.error.reason for reply in replies if reply.has_error()]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", "NaN or infinity in 2.weight; it keeps the state that it had"),
        ("inf", "NaN or infinity in 2.weight; it keeps the state that it had"),
        ("shape", "2.weight, which stays with its client, is (1, 2, 4) torch.float64, must be (2, 4) torch.float64"),
        ("lacks", "the reply lacks 2.bias, which stays with its client; reply with the whole model"),
    ],
)
def test_a_client_whose_new_leaves_are_wrong_has_failed_and_keeps_the_old_ones(
    engine: str, how: str, reason: str
) -> None:
    (first, second), reasons = states_after(Head(how), engine)
    assert len(reasons) == 2 and all(reason in found for found in reasons)
    assert {c: tree.digest(s) for c, s in first.items()} == {c: tree.digest(s) for c, s in second.items()}
    assert set(first[0]) == {"visited", "home::2.weight", "home::2.bias"}


def test_a_rule_that_keeps_its_own_state_gets_new_leaves_all_the_same() -> None:
    (first, second), reasons = states_after(Head("once"), "loop")
    assert not reasons
    for c in first:
        assert torch.equal(first[c]["visited"], second[c]["visited"])
        assert not torch.equal(first[c]["home::2.bias"], second[c]["home::2.bias"])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("2.bias", r"home of Named = '2.bias': it must give several names, such as \('2.bias',\)"),
        (("3.bias", "2.bias"), "home of Named has 3.bias, no leaf of the model; choose among 0.weight, 0.bias, 1.w"),
    ],
)
def test_what_is_no_leaf_of_the_model_is_refused(loss: Loss, named: Any, message: str) -> None:
    class Named(Strategy):
        def home(self, loss: Loss) -> Sequence[str]:
            return named  # type: ignore[no-any-return]

    with pytest.raises(ConfigError, match=message):
        names_of(Named(), loss)


def test_a_rule_that_replies_with_updates_is_refused(loss: Loss) -> None:
    class Updates(Head):
        reply_kind = "update"

    with pytest.raises(ConfigError, match="home of Updates: its reply_kind is 'update'; .* reply with the model"):
        names_of(Updates(), loss)


def test_names_are_in_the_order_of_the_model_and_a_sentence_says_how_many(loss: Loss) -> None:
    class Turned(Head):
        def home(self, loss: Loss) -> Sequence[str]:
            return (*HEAD[::-1], HEAD[0])

    assert names_of(Turned(), loss) == HEAD and names_of(Strategy(), loss) == ()  # type: ignore[abstract]
    assert "2 of the model's 9 arrays stay with their clients (2.weight, 2.bias), and the central" in note(HEAD, loss)
    assert "the whole model stays with its client" in note(names_of(LocalOnly(), loss), loss) and note((), loss) == ""


def test_a_state_of_another_strategy_is_no_state_of_this_one() -> None:
    with pytest.raises(ValueError, match="the client's state lacks 2.bias, .* the state of another strategy"):
        of_client({"home::2.weight": torch.ones(1)}, HEAD)


def test_statistics_that_a_reply_leaves_out_stay_as_they_are(loss: Loss) -> None:
    before = loss.initial()
    reply = {k: x for k, x in before.items() if k != "1.running_mean"}
    shared, home = taken_out(reply, ("1.running_mean",), before, loss)
    assert shared == reply and home == {"1.running_mean": before["1.running_mean"]}
