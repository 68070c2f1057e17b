"""System ``pfl``: pfl-research's FederatedAveraging on its SimulatedBackend, one process per core as in ``torchrun``.

F. Granqvist et al., arXiv:2404.06430. The processes exchange sums over gloo. Process 0 receives the benchmark's
requests and forwards them to the others, so that all of them wait without using a processor. pfl does not shuffle a
client's samples.
"""

import importlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.children.protocol import Facts, ParentConnection, Unavailable, serve
from experiments.bench.children.round_loop import evaluates
from experiments.bench.workloads.shared_inputs import SharedInputs
from fl_sim import rng


class ProcessGroup:
    """All processes of the run. Each of them calls ``next_requested`` before each repetition.

    ``parent`` is the connection to the benchmark in process 0, and None in the others.
    """

    def __init__(self, job: Facts, parent: ParentConnection | None) -> None:
        self.job, self.parent = job, parent
        self.others: list[subprocess.Popen[str]] = []

    def next_requested(self, **facts: object) -> bool:
        """Wait for the next request; returns whether another repetition is requested."""
        if self.parent is None:
            return sys.stdin.readline().strip() == "go"
        more = self.parent.next_requested(**facts)
        for process in self.others:
            send_line(process, "go" if more else "evaluate")
        return more

    def start_others(self) -> None:
        """Start the other processes with the environment variables that ``torchrun`` sets."""
        cores = str(self.job["cores"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"TORCHELASTIC_RUN_ID": "bench", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common |= {"WORLD_SIZE": cores, "LOCAL_WORLD_SIZE": cores}
        command = [sys.executable, "-m", "experiments.bench.systems.pfl", "follow"]
        for rank in map(str, range(1, self.job["cores"])):
            env = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, env=env)
            send_line(process, json.dumps(self.job))
            self.others.append(process)
        if self.others:
            os.environ.update(common, RANK="0", LOCAL_RANK="0")


def send_line(process: "subprocess.Popen[str]", line: str) -> None:
    """Send one line to another process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


class PflModule(nn.Module):
    """The model with the two methods that pfl calls, ``loss`` and ``metrics``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy."""
        self.train()
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, object]:
        """The number of samples; no metric is needed, but pfl evaluates the clients of the first round in any case."""
        from pfl.metrics import Weighted

        return {"examples": Weighted(len(y), len(y))}


class AfterRound:
    """A pfl callback that calls ``on_round`` with the number of the round that has just ended."""

    def __init__(self, on_round: Callable[[int], None]) -> None:
        from pfl.metrics import Metrics

        self.on_round, self.no_metrics = on_round, Metrics

    def on_train_begin(self, **_: object) -> object:
        """Do nothing; pfl calls it."""
        return self.no_metrics()

    def after_central_iteration(self, *_: object, central_iteration: int) -> tuple[bool, object]:
        """Report the round; the training goes on."""
        self.on_round(central_iteration)
        return False, self.no_metrics()

    def on_train_end(self, **_: object) -> None:
        """Do nothing; pfl calls it."""


def run_fedavg(inputs: SharedInputs, module: PflModule, goes: int, after: AfterRound) -> None:
    """Run pfl's ``FederatedAveraging`` for ``goes`` rounds with the callback ``after``."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    work = inputs.work
    order = list(itertools.chain.from_iterable(inputs.cohorts))
    sizes = {c: inputs.size(c) for c in range(len(inputs))}
    with rng.keyed_globals(0):  # so that all processes draw the same
        clients = FederatedDataset(
            lambda c: Dataset(list(inputs.client(c)), user_id=c),
            get_user_sampler("minimize_reuse", order),
            sizes if len(set(sizes.values())) > 1 else None,
        )
        model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
        backend = SimulatedBackend(clients, clients, postprocessors=[WeightByDatapoints()])
        FederatedAveraging().run(
            NNAlgorithmParams(goes, 10**9, work["cohort"], 0),
            backend,
            model,
            NNTrainHyperParams(work["batch"], 1, work["lr"]),
            NNEvalHyperParams(500),
            callbacks=[after],
            send_metrics_to_platform=False,
        )


def round_facts(inputs: SharedInputs, numbers: Iterable[int]) -> Facts:
    """Numbers of updates and examples in the given rounds."""
    cohorts = [inputs.cohorts[number] for number in numbers]
    return {"updates": sum(map(len, cohorts)), "examples": sum(inputs.size(c) for cohort in cohorts for c in cohort)}


def rounds(group: ProcessGroup) -> Facts:
    """One run that waits for a request before each round."""
    inputs = SharedInputs(group.job)
    goes, module = group.job["goes"], PflModule(inputs.initial_module())

    def on_round(number: int) -> None:
        if number + 1 < goes:
            group.next_requested(**round_facts(inputs, [number]))

    if group.next_requested():
        run_fedavg(inputs, module, goes, AfterRound(on_round))
        group.next_requested(**round_facts(inputs, [goes - 1]))
    return {"accuracy": inputs.accuracy(module.net)}


def whole(group: ProcessGroup) -> Facts:
    """Whole runs, each from after the imports to its end."""
    facts: Facts = {}
    accuracies: list[float] = []
    while group.next_requested(**facts):
        facts = one_run(group, accuracies)
    return {"accuracy": accuracies[-1]} if accuracies else {}


def one_run(group: ProcessGroup, accuracies: list[float]) -> Facts:
    """One whole run; process 0 evaluates and appends the accuracies to ``accuracies``."""
    inputs = SharedInputs(group.job)
    work, module = inputs.work, PflModule(inputs.initial_module())

    def on_round(number: int) -> None:
        if group.parent is not None and evaluates(work, number + 1):
            accuracies.append(inputs.accuracy(module.net))

    run_fedavg(inputs, module, work["rounds"], AfterRound(on_round))
    return round_facts(inputs, range(work["rounds"]))


def run(group: ProcessGroup) -> Facts:
    """Run one of the processes. They connect to each other when pfl is imported."""
    torch.set_num_threads(1)
    importlib.import_module("pfl.model.pytorch")
    if group.parent is not None:
        group.parent.imports_done()
    return whole(group) if group.job["work"]["whole"] else rounds(group)


def main(parent: ParentConnection) -> Facts:
    """Run process 0, after starting the others."""
    if find_spec("pfl") is None:
        raise Unavailable("pfl is not installed: pip install -e '.[bench]' with Python < 3.13")
    group = ProcessGroup(parent.job, parent)
    group.start_others()
    return run(group)


if __name__ == "__main__":
    if sys.argv[1:] == ["follow"]:
        run(ProcessGroup(json.loads(sys.stdin.readline()), None))
    else:
        serve(main)
