"""pfl-research: its FederatedAveraging on its SimulatedBackend, one process a core, as ``torchrun`` would start them. No paper.

F. Granqvist et al., arXiv:2404.06430. The processes exchange sums over gloo. Process 0 talks to the benchmark and passes
each go on to the others, so that all of them wait without using a processor. pfl does not shuffle a client's samples.
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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.children.protocol import Facts, Tokens, Unavailable, serve
from experiments.bench.children.round_loop import evaluates
from experiments.bench.workloads.shared_inputs import World
from fl_sim import rng


class Group:
    """All processes of the run. Every one of them calls ``next`` for each go."""

    def __init__(self, job: Facts, tokens: Tokens | None) -> None:
        self.job, self.tokens = job, tokens
        self.others: list[subprocess.Popen[str]] = []

    def next(self, **facts: Any) -> bool:
        """Whether to do one more."""
        if self.tokens is None:
            return sys.stdin.readline().strip() == "go"
        more = self.tokens.next(**facts)
        for process in self.others:
            tell(process, "go" if more else "evaluate")
        return more

    def start_others(self) -> None:
        """The other processes, with the environment that ``torchrun`` gives."""
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
            tell(process, json.dumps(self.job))
            self.others.append(process)
        if self.others:
            os.environ.update(common, RANK="0", LOCAL_RANK="0")


def tell(process: "subprocess.Popen[str]", line: str) -> None:
    """One line to another process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


class Learner(nn.Module):
    """What pfl wants of a module: ``loss`` and ``metrics``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy."""
        self.train()
        return F.cross_entropy(self.net(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """None are asked for, but pfl evaluates the clients of the first round all the same."""
        from pfl.metrics import Weighted

        return {"examples": Weighted(len(y), len(y))}


class After:
    """A pfl callback that calls ``then`` with the number of the round that was done."""

    def __init__(self, then: Callable[[int], None]) -> None:
        from pfl.metrics import Metrics

        self.then, self.nothing = then, Metrics

    def on_train_begin(self, **_: Any) -> Any:
        """Nothing."""
        return self.nothing()

    def after_central_iteration(self, *_: Any, central_iteration: int) -> tuple[bool, Any]:
        """Never stops."""
        self.then(central_iteration)
        return False, self.nothing()

    def on_train_end(self, **_: Any) -> None:
        """Nothing."""


def algorithm(world: World, learner: Learner, goes: int, after: After) -> None:
    """``FederatedAveraging.run`` for so many rounds; ``after`` is called after each."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    work = world.work
    order = list(itertools.chain.from_iterable(world.cohorts))
    sizes = {c: world.size(c) for c in range(len(world))}
    with rng.keyed_globals(0):  # the processes agree on what they draw
        clients = FederatedDataset(
            lambda c: Dataset(list(world.client(c)), user_id=c),
            get_user_sampler("minimize_reuse", order),
            sizes if len(set(sizes.values())) > 1 else None,
        )
        model = PyTorchModel(learner, torch.optim.SGD, torch.optim.SGD(learner.parameters(), lr=1.0))
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


def done_in(world: World, numbers: Iterable[int]) -> Facts:
    """The facts of some rounds."""
    cohorts = [world.cohorts[number] for number in numbers]
    return {"updates": sum(map(len, cohorts)), "examples": sum(world.size(c) for cohort in cohorts for c in cohort)}


def rounds(group: Group) -> Facts:
    """One run that waits after each round."""
    world = World(group.job)
    goes, learner = group.job["goes"], Learner(world.module())

    def then(number: int) -> None:
        if number + 1 < goes:
            group.next(**done_in(world, [number]))

    if group.next():
        algorithm(world, learner, goes, After(then))
        group.next(**done_in(world, [goes - 1]))
    return {"accuracy": world.accuracy(learner.net)}


def whole(group: Group) -> Facts:
    """Everything after the imports."""
    facts: Facts = {}
    last: list[float] = []
    while group.next(**facts):
        facts = one_run(group, last)
    return {"accuracy": last[-1]} if last else {}


def one_run(group: Group, accuracies: list[float]) -> Facts:
    """A whole run, with its evaluations by process 0."""
    world = World(group.job)
    work, learner = world.work, Learner(world.module())

    def then(number: int) -> None:
        if group.tokens is not None and evaluates(work, number + 1):
            accuracies.append(world.accuracy(learner.net))

    algorithm(world, learner, work["rounds"], After(then))
    return done_in(world, range(work["rounds"]))


def run(group: Group) -> Facts:
    """What every process does. pfl joins the processes when it is imported."""
    torch.set_num_threads(1)
    importlib.import_module("pfl.model.pytorch")
    if group.tokens is not None:
        group.tokens.imports_done()
    return whole(group) if group.job["work"]["whole"] else rounds(group)


def main(tokens: Tokens) -> Facts:
    """Process 0."""
    if find_spec("pfl") is None:
        raise Unavailable("pfl is not installed: pip install -e '.[bench]' with Python < 3.13")
    group = Group(tokens.job, tokens)
    group.start_others()
    return run(group)


if __name__ == "__main__":
    if sys.argv[1:] == ["follow"]:
        run(Group(json.loads(sys.stdin.readline()), None))
    else:
        serve(main)
