"""The check that each client gets the state that it returned last, against its own calls made by hand."""

from collections.abc import Iterable, Iterator

from flwr.app import Message

from experiments.check.comparisons import assert_close
from experiments.check.world import SIZES, UNSEEN, Make, app_of, plain, trained, world
from fl_sim import SimulationGrid, rng, tree
from fl_sim.blocks.padding import plain_batches
from fl_sim.blocks.plan import plan_blocks
from fl_sim.blocks.resolve import resolve
from fl_sim.grids.messages import client_of, received_of
from fl_sim.learning.loss import Loss
from fl_sim.learning.returned import call
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree
from fl_sim.wire import payload


def check_each_client_gets_its_own_state(make: Make) -> None:
    """After three rounds, on loop and vmap, clients have the states of ``local_update`` called for one after another.

    The calls by hand get the run's global models, and keep each client's last state that is not {}.
    """
    runs = {engine: plain(make, engine) for engine in ("loop", "vmap")}
    sent: list[Message] = []

    class Recorded(SimulationGrid):
        """A simulation that keeps its messages."""

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
            """As the simulation does."""
            sent.extend(messages := list(messages))
            return super().send_and_receive(messages, timeout=timeout)

    if not any(run.states for run in runs.values()):
        return
    trained(make(), grid=Recorded)
    states = states_by_hand(make, sent)
    for engine, run in runs.items():
        assert set(run.states) == set(states), (
            f"on {engine}, clients {sorted(run.states)} have a state; those that returned one are {sorted(states)}"
        )
        for client, state in states.items():
            assert_close(state, run.states[client], f"the state of client {client} on {engine} against calls by hand")


def states_by_hand(make: Make, sent: Iterable[Message]) -> dict[int, Tree]:
    """Client -> the state that it ends with, by one call of ``local_update`` for each message, in their order."""
    strategy, (loss, partition) = make(), world()
    learner, states = app_of(strategy).learner, dict[int, Tree]()
    grid = SimulationGrid(app_of(strategy), len(SIZES), holdout_clients=UNSEEN)
    for message in sent:
        client, model = client_of(message), loss.received(received_of(message))
        [plan] = plan_blocks(learner, "train", [(0, client, grid.settings(message))], {}, 1)
        block, _ = resolve(plan, learner, model)
        [job] = block.jobs
        own = states[client] if client in states else first_state(block.rule, model, loss)
        streams = {k: plain_batches(learner.data, job, k, partition, loss.device) for k in job.streams}
        with rng.keyed_globals(job.draw("globals")):
            _, new, _ = call(block.rule, tree.clone(model), tree.clone(own), streams, loss, block.local)
        states |= {client: tree.clone(new)} if new else {}
    return states


def first_state(rule: LocalRule, model: Tree, loss: Loss) -> Tree:
    """The state of a client that has none yet, by hand: the rule's own, and the initial leaves that stay with it."""
    received, initial = payload.split(tree.clone(model))[0], loss.initial()
    home = {k: initial[k] for k in rule.home(loss)}
    own = rule.initial_state({k: home.get(k, received.get(k, x)) for k, x in initial.items()})
    return {**own, **{f"home::{k}": home[k] for k in initial if k in home}}
