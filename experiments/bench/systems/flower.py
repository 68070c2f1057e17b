"""Stock Flower: ``flwr.simulation`` with a ServerApp and Flower's own FedAvg, one actor of one CPU a core. No paper."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from experiments.bench.children.protocol import Facts, Tokens, serve
from experiments.bench.children.round_loop import evaluates
from experiments.bench.systems.flower_clients import app
from experiments.bench.workloads.catalogue import Work
from experiments.bench.workloads.shared_inputs import World


class Named(FedAvg):
    """Flower's FedAvg; each message also names the client whose data it is for, so that all systems do the same work."""

    cohorts: list[list[int]]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One more config entry a message."""
        messages = super().configure_train(server_round, arrays, config, grid)
        for message, client in zip(messages, self.cohorts[server_round - 1], strict=True):
            named = ConfigRecord({**config, "client": client})
            message.content = RecordDict({"arrays": arrays, "config": named})
            yield message


def strategy(work: Work, cohorts: list[list[int]]) -> Named:
    """So many of the nodes a round; no evaluation on clients."""
    made = Named(
        fraction_train=work.cohort / work.clients,
        fraction_evaluate=0.0,
        min_train_nodes=work.cohort,
        min_available_nodes=work.clients,
    )
    made.cohorts = cohorts
    return made


def one_round(made: Named, grid: Grid, number: int, arrays: ArrayRecord) -> tuple[ArrayRecord, Facts]:
    """What ``Strategy.start`` does in a round."""
    replies = grid.send_and_receive(list(made.configure_train(number, arrays, ConfigRecord(), grid)))
    replies = list(replies)
    failed = [reply.error.reason for reply in replies if reply.has_error()]
    if failed:
        raise RuntimeError(failed[0])
    new, _ = made.aggregate_train(number, replies)
    assert new is not None
    examples = sum(int(str(dict(reply.content["metrics"])["num-examples"])) for reply in replies)
    return new, {"updates": len(replies), "examples": examples}


def actors_up(grid: Grid, work: Work, cores: int) -> None:
    """Wait for all nodes, then for an answer of each actor: Ray starts while the ServerApp already runs."""
    while len(nodes := list(grid.get_node_ids())) < work.clients:
        time.sleep(0.05)
    list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes[: 2 * cores]]))


def simulate(tokens: Tokens, work: Work, main: Any) -> None:
    """``run_simulation`` around a ServerApp whose main function is ``main(grid)``."""
    server, errors = ServerApp(), []

    @server.main()
    def serverapp(grid: Grid, context: Context) -> None:
        try:
            main(grid)
        except BaseException as error:
            errors.append(error)
            raise

    cores = tokens.job["cores"]
    name = "nothing" if not work.task else "careful" if tokens.job["options"]["careful"] else "idiomatic"
    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": cores, "include_dashboard": False},
    }
    run_simulation(server, app(tokens.job, name), work.clients, backend_config=backend)
    if errors:
        raise errors[0]


def main(tokens: Tokens) -> Facts:
    """Rounds of one simulation, or whole simulations, Ray's start included."""
    work = Work(**tokens.job["work"])
    last: dict[str, Any] = {}

    def rounds(grid: Grid) -> None:
        world = World(tokens.job) if work.task else None
        cohorts = world.cohorts if world else [[0] * work.cohort] * tokens.job["goes"]
        made = strategy(work, cohorts)
        arrays = ArrayRecord(world.module().state_dict() if world else torch.nn.Linear(1, 2).state_dict())
        actors_up(grid, work, tokens.job["cores"])
        facts: Facts = {}
        number = 0
        while tokens.next(**facts):
            number += 1
            arrays, facts = one_round(made, grid, number, arrays)
        if world:
            last["accuracy"] = accuracy(world, arrays)

    def whole(grid: Grid) -> None:
        world = World(tokens.job)
        made = strategy(work, world.cohorts)
        arrays = ArrayRecord(world.module().state_dict())
        last["facts"] = {"updates": 0, "examples": 0}
        for number in range(1, work.rounds + 1):
            arrays, done = one_round(made, grid, number, arrays)
            last["facts"] = {key: value + done[key] for key, value in last["facts"].items()}
            if evaluates(tokens.job["work"], number):
                last["accuracy"] = accuracy(world, arrays)

    if not work.whole:
        simulate(tokens, work, rounds)
    while work.whole and tokens.next(**last.get("facts", {})):
        simulate(tokens, work, whole)
    return {"accuracy": last.get("accuracy")}


def accuracy(world: World, arrays: ArrayRecord) -> float:
    """Of the global model."""
    module = world.new_module()
    module.load_state_dict(arrays.to_torch_state_dict())
    return world.accuracy(module)


if __name__ == "__main__":
    serve(main)
