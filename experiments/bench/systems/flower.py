"""Systems ``flower`` and ``flower-careful``: Flower's simulation and its own FedAvg, one actor with one CPU a core."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from experiments.bench.children.protocol import Facts, ParentConnection, serve
from experiments.bench.children.round_loop import evaluates
from experiments.bench.systems.flower_clients import client_app
from experiments.bench.workloads.catalogue import Work
from experiments.bench.workloads.shared_inputs import SharedInputs


class NamedClientFedAvg(FedAvg):
    """Flower's FedAvg; each message also names the client to train, so that all systems train the same clients."""

    cohorts: list[list[int]]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's own messages, each with the entry ``client`` added to its config."""
        messages = super().configure_train(server_round, arrays, config, grid)
        for message, client in zip(messages, self.cohorts[server_round - 1], strict=True):
            named = ConfigRecord({**config, "client": client})
            message.content = RecordDict({"arrays": arrays, "config": named})
            yield message


def named_fedavg(work: Work, cohorts: list[list[int]]) -> NamedClientFedAvg:
    """FedAvg on ``work.cohort`` nodes a round, without evaluation on clients."""
    strategy = NamedClientFedAvg(
        fraction_train=work.cohort / work.clients,
        fraction_evaluate=0.0,
        min_train_nodes=work.cohort,
        min_available_nodes=work.clients,
    )
    strategy.cohorts = cohorts
    return strategy


def one_round(strategy: NamedClientFedAvg, grid: Grid, number: int, arrays: ArrayRecord) -> tuple[ArrayRecord, Facts]:
    """Do what Flower's ``Strategy.start`` does in a round; returns the new global model and what was done."""
    replies = grid.send_and_receive(list(strategy.configure_train(number, arrays, ConfigRecord(), grid)))
    replies = list(replies)
    failed = [reply.error.reason for reply in replies if reply.has_error()]
    if failed:
        raise RuntimeError(failed[0])
    new, _ = strategy.aggregate_train(number, replies)
    assert new is not None
    examples = sum(int(str(dict(reply.content["metrics"])["num-examples"])) for reply in replies)
    return new, {"updates": len(replies), "examples": examples}


def wait_for_actors(grid: Grid, work: Work, cores: int) -> None:
    """Wait until all nodes are known and actors answer: Ray still starts while the ServerApp already runs."""
    while len(nodes := list(grid.get_node_ids())) < work.clients:
        time.sleep(0.05)
    list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes[: 2 * cores]]))


def simulate(parent: ParentConnection, work: Work, main: Callable[[Grid], None]) -> None:
    """Run a simulation whose ServerApp calls ``main(grid)``. Raises the error that ``main`` raised."""
    server, errors = ServerApp(), []

    @server.main()
    def serverapp(grid: Grid, context: Context) -> None:
        try:
            main(grid)
        except BaseException as error:
            errors.append(error)
            raise

    cores = parent.job["cores"]
    name = "nothing" if not work.task else "careful" if parent.job["options"]["careful"] else "idiomatic"
    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": cores, "include_dashboard": False},
    }
    run_simulation(server, client_app(parent.job, name), work.clients, backend_config=backend)
    if errors:
        raise errors[0]


def main(parent: ParentConnection) -> Facts:
    """Run the system for the parent: rounds of one simulation, or whole simulations with Ray's start included."""
    work = Work(**parent.job["work"])
    final: dict[str, Any] = {}

    def rounds(grid: Grid) -> None:
        inputs = SharedInputs(parent.job) if work.task else None
        cohorts = inputs.cohorts if inputs else [[0] * work.cohort] * parent.job["goes"]
        strategy = named_fedavg(work, cohorts)
        arrays = ArrayRecord(inputs.initial_module().state_dict() if inputs else torch.nn.Linear(1, 2).state_dict())
        wait_for_actors(grid, work, parent.job["cores"])
        facts: Facts = {}
        number = 0
        while parent.next_requested(**facts):
            number += 1
            arrays, facts = one_round(strategy, grid, number, arrays)
        if inputs:
            final["accuracy"] = accuracy(inputs, arrays)

    def whole(grid: Grid) -> None:
        inputs = SharedInputs(parent.job)
        strategy = named_fedavg(work, inputs.cohorts)
        arrays = ArrayRecord(inputs.initial_module().state_dict())
        final["facts"] = {"updates": 0, "examples": 0}
        for number in range(1, work.rounds + 1):
            arrays, of_round = one_round(strategy, grid, number, arrays)
            final["facts"] = {key: value + of_round[key] for key, value in final["facts"].items()}
            if evaluates(parent.job["work"], number):
                final["accuracy"] = accuracy(inputs, arrays)

    if not work.whole:
        simulate(parent, work, rounds)
    while work.whole and parent.next_requested(**final.get("facts", {})):
        simulate(parent, work, whole)
    return {"accuracy": final.get("accuracy")}


def accuracy(inputs: SharedInputs, arrays: ArrayRecord) -> float:
    """The accuracy of the global model on the test samples."""
    module = inputs.new_module()
    module.load_state_dict(arrays.to_torch_state_dict())
    return inputs.accuracy(module)


if __name__ == "__main__":
    serve(main)
