"""SimulationGrid: nodes, a reply for each message, pools in a block's first reply, failures, any other ClientApp."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.app import make_app
from fl_sim import Partition, SimulationGrid, from_arrays, rng, tree
from fl_sim.grids.messages import client_of
from fl_sim.learning.loss import Loss
from fl_sim.wire import records
from fl_sim.wire.pool import WEIGHT
from strategies.fedavg import FedAvg
from strategies.pools.mean import Mean

SIZES = [2, 5, 3, 8, 4, 6]
SETTINGS = {"local.batch_size": 4, "local.lr": 0.1, "rounds": 1}


def grid_of(sizes: list[int] = SIZES, **options: Any) -> SimulationGrid:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(sum(sizes), 3)), draw.integers(0, 2, sum(sizes))
    with rng.keyed_globals(0):
        loss = Loss(nn.Linear(3, 2), from_arrays(x, y, x_test=x, y_test=y, outputs=2), torch.float64)
    partition = Partition.of(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))
    return SimulationGrid(make_app(loss, partition), len(sizes), **options)


def messages_of(grid: SimulationGrid, strategy: FedAvg | None = None) -> list[Message]:
    assert grid.learner is not None
    arrays = records.encode(grid.learner.loss.initial())
    return list((strategy or FedAvg()).configure_train(1, arrays, records.config(SETTINGS), grid))


def test_nodes_are_a_range_and_those_held_out_are_apart() -> None:
    grid = grid_of(holdout_clients=2)
    assert grid.get_node_ids() == range(2, 6) and grid.holdout_node_ids == range(6, 8)
    assert SimulationGrid(ClientApp(), 10**9).get_node_ids() == range(2, 10**9 + 2)  # a billion nodes need no memory


def test_a_message_to_no_node_of_the_grid_is_refused() -> None:
    grid = grid_of()
    message = Message(RecordDict(), 99, "train")
    with pytest.raises(ValueError, match=r"node 99: this grid has nodes 2\.\."):
        grid.send_and_receive([message])


@pytest.mark.parametrize("block_size, blocks", [(1, 6), (4, 2), (16, 1)])
@pytest.mark.parametrize("pooled", [True, False])
def test_every_message_has_one_reply_and_a_block_one_pool(block_size: int, blocks: int, pooled: bool) -> None:
    grid = grid_of(block_size=block_size)
    grid.pool = Mean() if pooled else None
    sent = messages_of(grid)
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.send_and_receive(sent)}
    assert set(replies) == {message.metadata.message_id for message in sent} and len(replies) == 6
    covered: list[str] = []
    for message in sent:
        reply = replies[message.metadata.message_id]
        client, numbers = client_of(message), records.merged(reply.content.metric_records.values())
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
        assert numbers["num-examples"] == SIZES[client] and numbers["steps"] == -(-SIZES[client] // 4)
        assert {"loss", "update_norm"} <= set(numbers)
        facts = reply.content.config_records["facts"]
        assert facts["num-bytes"] == 8 * (3 * 2 + 2)  # what a real device would send: 8 numbers of 8 bytes
        assert ("arrays" in reply.content.array_records) == (not pooled)
        if "pool" in reply.content.array_records:
            mine = list(facts["covers"])
            weight = float(records.decode(reply.content.array_records["pool"])[WEIGHT])
            assert weight == sum(SIZES[client_of(m)] for m in sent if m.metadata.message_id in mine)
            assert facts["pooled_in"] == message.metadata.message_id and message.metadata.message_id in mine
            assert all(
                replies[i].content.config_records["facts"]["pooled_in"] == message.metadata.message_id for i in mine
            )
            covered += mine
    assert sorted(covered) == (sorted(replies) if pooled else [])
    assert sum("pool" in reply.content.array_records for reply in replies.values()) == (blocks if pooled else 0)


def test_messages_of_a_round_may_carry_different_models() -> None:
    """Each client trains from the model that it was sent, and no two blocks of the round have one number."""
    grid = grid_of(block_size=2)
    assert grid.learner is not None
    arrays = records.encode(tree.scale(grid.learner.loss.initial(), 2.0))
    plain, sent = messages_of(grid), messages_of(grid)
    doubled = RecordDict({**sent[0].content, "arrays": arrays})
    for message in sent:
        message.content = doubled

    def models(messages: list[Message]) -> dict[int, str]:
        replies = grid.send_and_receive(messages)
        return {r.metadata.src_node_id: tree.digest(records.decode(r.content["arrays"])) for r in replies}

    of_plain, of_doubled = models(plain), models(sent)
    mixed = [(m, n)[m.metadata.dst_node_id % 2] for m, n in zip(plain, sent, strict=True)]
    assert models(mixed) == {node: (of_plain, of_doubled)[node % 2][node] for node in of_plain}
    assert {r.content["facts"]["block"] for r in grid.send_and_receive(mixed)} == {0, 1, 2, 3}


def test_blocks_are_computed_while_their_replies_are_consumed() -> None:
    grid = grid_of(block_size=2)
    computed: list[int] = []
    grid.on_block = lambda result: computed.append(result.plan.number)
    replies = iter(grid.send_and_receive(messages_of(grid)))
    assert computed == []
    next(replies)
    assert computed == [0]
    list(replies)
    assert computed == [0, 1, 2]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_client_without_samples_is_a_failure_of_its_own(engine: str) -> None:
    grid = grid_of([3, 0, 4], engine=engine)
    grid.pool = Mean()
    replies = {reply.metadata.src_node_id - 2: reply for reply in grid.send_and_receive(messages_of(grid))}
    assert [c for c, reply in replies.items() if reply.has_error()] == [1]
    assert "no training samples" in replies[1].error.reason
    [pool] = [
        reply.content.array_records["pool"]
        for reply in replies.values()
        if reply.has_content() and "pool" in reply.content.array_records
    ]
    assert float(records.decode(pool)[WEIGHT]) == 7


def test_push_and_pull_return_each_reply_once() -> None:
    grid = grid_of()
    numbers = grid.push_messages(messages_of(grid))
    first = grid.pull_messages([*numbers[:2], "unknown"])
    rest = grid.pull_messages(numbers)
    assert [m.metadata.reply_to_message_id for m in first + rest] == numbers and grid.pull_messages(numbers) == []


def test_the_draws_of_a_client_do_not_depend_on_the_others() -> None:
    grid = grid_of()
    everyone = {r.metadata.src_node_id: r for r in grid.send_and_receive(messages_of(grid))}
    few = FedAvg()
    few.cohort = 2
    for reply in grid.send_and_receive(messages_of(grid, few)):
        same = everyone[reply.metadata.src_node_id]
        digests = [tree.digest(records.decode(r.content.array_records["arrays"])) for r in (reply, same)]
        assert digests[0] == digests[1]


def ordinary(answers: list[tuple[int, float, int]]) -> ClientApp:
    """An app that uses Flower's documented API alone: it keeps a state, draws, and fails on one client."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        record = context.state.metric_records.get("calls", MetricRecord({"n": 0}))
        calls = int(record["n"]) + 1  # type: ignore[arg-type]
        context.state["calls"] = MetricRecord({"n": calls})
        answers.append((client, random.random(), calls))
        if client == 2:
            raise LookupError("no data here")
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def test_any_other_app_is_called_once_a_message_with_a_context_of_its_own() -> None:
    def calls(seed: int) -> list[tuple[int, float, int]]:
        answers: list[tuple[int, float, int]] = []
        grid = SimulationGrid(ordinary(answers), 4, seed=seed)
        for _ in range(2):
            replies = list(
                grid.send_and_receive([Message(RecordDict(), node, "train") for node in grid.get_node_ids()])
            )
            assert [reply.has_error() for reply in replies] == [False, False, True, False]
            assert "LookupError: no data here" in replies[2].error.reason and "Traceback" in replies[2].error.reason
        return answers

    first = calls(0)
    assert [client for client, _, _ in first] == [0, 1, 2, 3] * 2
    assert [n for client, _, n in first if client != 2] == [1, 1, 1, 2, 2, 2]  # its state comes back
    assert len({draw for _, draw, _ in first}) == 8 and first == calls(0) != calls(
        1
    )  # draws are keyed by client and time
