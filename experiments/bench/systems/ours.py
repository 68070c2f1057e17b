"""Systems ``ours-loop``, ``ours-vmap``, ``ours-ray``, ``stateless`` and ``stateful``: this simulator."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from experiments.bench.children.protocol import Facts, ParentConnection, Unavailable, serve
from experiments.bench.systems.idle_clients import IdleClients
from experiments.bench.systems.visiting_clients import VisitingClients
from experiments.bench.workloads.catalogue import Work
from experiments.bench.workloads.shared_inputs import SharedInputs
from experiments.bench.workloads.workload_config import settings
from experiments.config.recipe_files import make
from experiments.run import run
from experiments.runs.setup import build
from fl_sim import Callback, RoundLog, Run, from_arrays, run_rounds
from fl_sim.rounds.checkpoint import Checkpoints

Tree = dict[str, torch.Tensor]


class WaitBeforeRound(Callback):
    """A callback that waits for the parent's request before each round."""

    def __init__(self, parent: ParentConnection) -> None:
        self.parent = parent
        self.facts: Facts = {}
        self.model: Tree = {}

    def on_round_start(self, run: Run) -> None:
        """Report the last round, whose time includes writing its log, and wait for the next request."""
        self.parent.next_requested(**self.facts)

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        """Keep the round's numbers; row 0 is the evaluation of the initial model and has none."""
        self.facts = {"updates": row["completed"], "examples": row["examples"]} if row["round"] else {}

    def on_run_end(self, run: Run) -> None:
        """Keep the final model."""
        self.model = run.model


class FirstRoundClock(Callback):
    """A callback that notes when the first round begins (``time.perf_counter``)."""

    def __init__(self) -> None:
        self.first_round = 0.0

    def on_round_start(self, run: Run) -> None:
        """Note the time, once."""
        self.first_round = self.first_round or time.perf_counter()


def run_settings(parent: ParentConnection, rounds: int) -> dict[str, Any]:
    """Keyword arguments for ``make`` or ``run``. Random arrays and clients that do nothing are passed as objects."""
    work, engine = Work(**parent.job["work"]), parent.job["options"]["engine"]
    more: dict[str, object] = {"engine": engine}
    if engine == "ray":
        more["ray"] = {"num_workers": parent.job["cores"], "num_cpus": 1.0}
    if not work.task:
        x = torch.zeros(work.clients, 1)
        labels = torch.arange(work.clients) % 2
        more |= {"task": from_arrays(x, labels, x_test=x[:2], y_test=labels[:2]), "strategy": IdleClients()}
    if "keep" in parent.job["options"]:
        visits = VisitingClients(work.cohort * work.warmup, work.cohort, parent.job["options"]["keep"])
        more |= {"strategy": visits, "cohort": work.cohort}
    return {**settings(work, rounds, str(Path(parent.job["folder"], "runs")), **more)}


def main(parent: ParentConnection) -> Facts:
    """Run the system for the parent: rounds of one run, or whole runs."""
    if parent.job["options"]["engine"] == "ray" and find_spec("ray") is None:
        raise Unavailable("Ray is not installed")
    work = Work(**parent.job["work"])
    return whole(parent, work) if work.whole else rounds(parent, work)


def rounds(parent: ParentConnection, work: Work) -> Facts:
    """One run that waits before each round and writes its log as usual; it is evaluated after the last round."""
    config = make(None, **run_settings(parent, parent.job["goes"]))
    setup, waiting = build(config), WaitBeforeRound(parent)
    torch.set_num_threads(config.threads)
    with RoundLog.create(Path(config.out), "bench", config.to_toml()) as log:
        run_rounds(
            setup.strategy,
            setup.grid,
            setup.initial,
            config.rounds,
            train_config=setup.train_config,
            evaluate_config=setup.evaluate_config,
            log=log,
            checkpoints=Checkpoints(log.path) if "keep" in parent.job["options"] else None,
            callbacks=[waiting],
            seed=config.seed,
        )
    parent.next_requested(**waiting.facts)
    if not work.task:
        return {}
    inputs = SharedInputs(parent.job)
    module = inputs.new_module()
    module.load_state_dict(waiting.model)
    return {"accuracy": inputs.accuracy(module)}


def whole(parent: ParentConnection, work: Work) -> Facts:
    """Whole runs: ``experiments.run.run`` from its call to its return, with data, partition, evaluations and logs."""
    facts: Facts = {}
    accuracy = None
    while parent.next_requested(**facts):
        clock, start = FirstRoundClock(), time.perf_counter()
        outcome = run(callbacks=[clock], **run_settings(parent, work.rounds))
        rows = outcome.log.rounds
        accuracy = outcome.summary["accuracy"]
        facts = {
            "updates": int(rows["completed"].sum()),
            "examples": int(rows["examples"].sum()),
            "to_first_round_s": clock.first_round - start,
        }
    return {"accuracy": accuracy}


if __name__ == "__main__":
    serve(main)
