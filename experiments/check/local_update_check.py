"""The check that a local rule is a pure function, in a client's first round and in its second one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from experiments.check.places import defined_at, written_by
from experiments.check.world import SIZES, TRAINING, Make, app_of, world
from fl_sim import SimulationGrid, tree
from fl_sim.blocks.padding import plain_batches
from fl_sim.blocks.plan import plan_blocks
from fl_sim.blocks.resolve import Block, resolve
from fl_sim.grids.messages import client_of, received_of
from fl_sim.learning.returned import call as called
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree
from fl_sim.wire import payload, records

RESULTS = ("reply", "state", "metrics")


def check_local_update_is_pure(make: Make) -> None:
    """``local_update`` writes into none of model, state and samples, and repeats its results; with BatchNorm too."""
    for batch_norm in (False, True):
        strategy, (loss, partition) = make(), world(batch_norm)
        learner, model = app_of(strategy, batch_norm).learner, loss.initial()
        grid = SimulationGrid(app_of(strategy, batch_norm), len(SIZES))
        whole = {"local.batch_size": 0} if batch_norm else {}  # BatchNorm refuses a batch of one sample
        messages = list(strategy.configure_train(1, records.encode(model), records.config({**TRAINING, **whole}), grid))
        received = payload.join(model, payload.split(received_of(messages[0]))[1])
        orders = [
            (0, client_of(m), grid.settings(m))
            for m in messages
            if partition.sizes(client_of(m))[0] >= (4 if batch_norm else 1)
        ]

        def call(block: Block, batch_norm: bool = batch_norm, received: Tree = received) -> Any:
            (loss, partition), job = world(batch_norm), block.jobs[0]
            streams = {k: plain_batches(loss.task.train, job, k, partition, loss.device) for k in job.streams}
            return called(block.rule, received, job.state, streams, loss, block.local)

        for plan in plan_blocks(learner, "train", orders, {}, 1):
            block, _ = resolve(plan, learner, received)
            state = _checked(call, block, {"global model": received, "samples": learner.data}, batch_norm)
            if state:
                again, _ = resolve(replace(plan, states={plan.orders[0].client: state}), learner, received)
                _checked(call, again, {"global model": received, "samples": learner.data}, batch_norm)


def _checked(call: Callable[[Block], Any], block: Block, given: dict[str, Tree], batch_norm: bool) -> Tree:
    """Call a local rule twice and compare; returns the client's new state."""
    done: list[Any] = []
    handed = {**given, "client's state": block.jobs[0].state}
    tensors = {f"the {what}'s {name}": x for what, leaves in handed.items() for name, x in leaves.items()}
    own = type(block.rule).payload_update is not LocalRule.payload_update
    method = type(block.rule).payload_update if own else type(block.rule).local_update
    for _ in range(2):
        written = written_by(lambda: done.append(call(block)), tensors, method)
        assert not written, f"local_update writes into {written}" + " (BatchNorm's buffers)" * batch_norm
    for name, first, second in zip(RESULTS, done[0], done[1], strict=True):
        same = tree.digest(tree.clone(first)) == tree.digest(tree.clone(second))
        assert same, f"local_update on the same input gives another {name} the second time{defined_at(method)}"
    return tree.clone(done[0][1])
