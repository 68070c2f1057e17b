"""This simulator, by the same functions that its own command uses: ``make``, ``build``, ``run_rounds``, ``run``. No paper."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from experiments.bench.children.protocol import Facts, Tokens, Unavailable, serve
from experiments.bench.systems.idle_clients import Nothing
from experiments.bench.workloads.as_config import settings
from experiments.bench.workloads.catalogue import Work
from experiments.bench.workloads.shared_inputs import World
from experiments.config.recipe_files import make
from experiments.run import run
from experiments.runs.setup import build
from fl_sim import Callback, RoundLog, Run, from_arrays, run_rounds

Tree = dict[str, torch.Tensor]


class Gate(Callback):
    """Before each round it waits until it may go on."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, self.facts, self.model = tokens, {}, {}  # type: Tokens, Facts, Tree

    def on_round_start(self, run: Run) -> None:
        """What came before this belongs to the last round, its lines of the log too."""
        self.tokens.next(**self.facts)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """What was done."""
        self.facts = {"updates": row["completed"], "examples": row["examples"]} if row["round"] else {}

    def on_run_end(self, run: Run) -> None:
        """The last model."""
        self.model = run.model


class Watch(Callback):
    """When the first round of a whole run begins."""

    def __init__(self) -> None:
        self.first_round = 0.0

    def on_round_start(self, run: Run) -> None:
        """Once."""
        self.first_round = self.first_round or time.perf_counter()


def chosen(tokens: Tokens, rounds: int) -> dict[str, Any]:
    """Keywords for ``make`` or ``run``. The work's random arrays, and clients that do nothing, are given as objects."""
    work, engine = Work(**tokens.job["work"]), tokens.job["options"]["engine"]
    more: dict[str, Any] = {"engine": engine}
    if engine == "ray":
        more["ray"] = {"num_workers": tokens.job["cores"], "num_cpus": 1.0}
    if not work.task:
        lone = torch.zeros(work.clients, 1)
        labels = torch.arange(work.clients) % 2
        more |= {"task": from_arrays(lone, labels, x_test=lone[:2], y_test=labels[:2]), "strategy": Nothing()}
    return {**settings(work, rounds, str(Path(tokens.job["folder"], "runs")), **more)}


def main(tokens: Tokens) -> Facts:
    """Rounds of one run, or whole runs."""
    if tokens.job["options"]["engine"] == "ray" and find_spec("ray") is None:
        raise Unavailable("Ray is not installed")
    work = Work(**tokens.job["work"])
    return whole(tokens, work) if work.whole else rounds(tokens, work)


def rounds(tokens: Tokens, work: Work) -> Facts:
    """One run that is held before each round. It writes its log as any run does; evaluation comes after the last go."""
    config = make(None, **chosen(tokens, tokens.job["goes"]))
    setup, gate = build(config), Gate(tokens)
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
            callbacks=[gate],
            seed=config.seed,
        )
    tokens.next(**gate.facts)
    if not work.task:
        return {}
    world = World(tokens.job)
    module = world.new_module()
    module.load_state_dict(gate.model)
    return {"accuracy": world.accuracy(module)}


def whole(tokens: Tokens, work: Work) -> Facts:
    """``experiments.run.run`` from its call to its return: data, partition, rounds, evaluations, logs."""
    facts: Facts = {}
    accuracy = None
    while tokens.next(**facts):
        watch, start = Watch(), time.perf_counter()
        outcome = run(callbacks=[watch], **chosen(tokens, work.rounds))
        rows = outcome.log.rounds
        accuracy = outcome.summary["accuracy"]
        facts = {
            "updates": int(rows["completed"].sum()),
            "examples": int(rows["examples"].sum()),
            "to_first_round_s": watch.first_round - start,
        }
    return {"accuracy": accuracy}


if __name__ == "__main__":
    serve(main)
