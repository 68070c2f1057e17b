"""The ServerApp: an experiment on real devices, with the settings, the logs and the run folder of a simulation. No paper.

``flwr run . --run-config "args='digits-deploy --strategy fedprox --rounds 5'"``: ``args`` is what would follow
``python -m experiments.run``. Its devices are ``clients.app:app``. Run by Flower's own simulation too.
"""

import contextlib
import inspect
import io
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.device.state import KEPT
from experiments.config.command_line import parse
from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.resume import resume
from experiments.runs.setup import Setup, build
from experiments.runs.summary import Summary
from fl_sim import RoundFailed
from fl_sim.errors import ConfigError
from fl_sim.grids.deployed import DeployedGrid
from fl_sim.grids.exchange import Failures
from fl_sim.grids.nodes import Nodes
from fl_sim.wire.flower import keeping_identity

DEFAULT = "digits-deploy"
"""The recipe of a call without ``args``, on as many clients as there are nodes."""

app = ServerApp()


@dataclass(frozen=True)
class Served:
    """How an experiment is served, besides its own settings."""

    node_timeout_s: float = 300.0
    """How long to wait for all clients' nodes."""
    timeout_s: float = 3600.0
    """How long to wait for the replies of a phase."""
    as_many_as_there_are: bool = False
    """Set ``clients`` to the number of nodes connected."""
    report: str = ""
    """A file to which each run's summary is appended as a line of JSON; empty: none."""
    run: str = "run"
    """What devices call the run: where they keep their clients' states."""
    resume: str = ""
    """A run folder, whose run goes on."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve what ``args`` asks for, one run after another. Raises for bad input and for a failed run: Flower's run has then failed."""
    said = context.run_config
    words = shlex.split(str(said.get("args", "")))
    configs, resume = understood(words or [DEFAULT])
    served = Served(
        node_timeout_s=float(said.get("node-timeout-s", 300.0)),
        timeout_s=float(said.get("timeout-s", 3600.0)),
        as_many_as_there_are=not words,
        report=str(said.get("report", "")),
        run=str(context.run_id),
        resume=resume,
    )
    failures = [error for _, error in serve(configs, grid, served) if error is not None]
    if failures:
        raise failures[0]


def asked(words: Sequence[str]) -> Sequence[Config]:
    """The runs of a command line. Raises ConfigError for what devices cannot do."""
    return understood(words)[0]


def understood(words: Sequence[str]) -> tuple[Sequence[Config], str]:
    """(the runs of a command line, the folder of the one that goes on if that is asked). Raises ConfigError for what devices cannot do."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            call = parse(words)
    except SystemExit as error:  # --help
        raise ConfigError(f"args = {shlex.join(words)!r}: asks for help; ask python -m experiments.run") from error
    for key in ("app", "vmap_over", "dry_run"):
        if getattr(call, key):
            raise ConfigError(f"{key} = {getattr(call, key)!r}: means nothing on devices; leave it out")
    return [deployable(config) for config in call.configs], call.resume


def deployable(config: Config) -> Config:
    """The config as devices run it: each is a client on the loop. Raises ConfigError where it asks for something else."""
    if config.checkpoint_every > KEPT:
        raise ConfigError(
            f"checkpoint_every = {config.checkpoint_every}: devices keep their states of {KEPT} rounds; give at most that"
        )
    if config.engine not in ("auto", "loop"):
        raise ConfigError(f"engine = {config.engine!r}: each device trains its one client on the loop; leave it out")
    for kind in ("task", "partition", "model", "strategy"):
        choice = getattr(config, kind)
        if choice.made or choice.name.startswith("__main__:"):
            raise ConfigError(
                f"{kind}.name = {choice.name!r}: an object does not travel to devices; give package.module:Name"
            )
    return replace(config, engine="loop")


def serve(configs: Sequence[Config], grid: Grid, served: Served) -> Iterator[tuple[Summary, BaseException | None]]:
    """Run after run on the same nodes: (summary, the error of a failed run)."""
    nodes: Nodes | None = None
    for number, config in enumerate(configs):
        resumed = resume(Path(served.resume), config) if served.resume else None
        if resumed is not None and resumed.finished is not None:
            yield told(dict(resumed.finished), served), None
            continue
        if served.as_many_as_there_are:
            config = replace(config, clients=present(grid, served.node_timeout_s), cohort=0)
        with keeping_identity():
            setup = build(config)
        allowed = Failures.parse(config.failures).allowed(len(setup.partition))
        enough(grid, len(setup.partition), allowed)
        name = f"{served.run}-{number}"
        if resumed is not None and resumed.begin is not None:
            name = str(resumed.begin.facts.get("run", name))  # where the devices have their states
        known = nodes if nodes is not None and nodes.num_clients == len(setup.partition) else None
        deployed = DeployedGrid(
            grid,
            len(setup.partition),
            {**experiment(setup), "run": name},
            holdout_clients=config.holdout_clients,
            allowed_missing=allowed,
            node_timeout_s=served.node_timeout_s,
            timeout_s=served.timeout_s,
            block_size=setup.config.block_size,
            nodes=known,
        )
        nodes = deployed.nodes
        summary, error = execute(replace(setup, grid=deployed), quiet=True, resumed=resumed, facts={"run": name})
        yield told(summary, served), error


def told(summary: Summary, served: Served) -> Summary:
    """The summary, once it was printed and reported."""
    folder = Path(summary["run_dir"]).absolute()
    print(f"{summary['status']}: {summary['rounds']} rounds, digest {summary['digest']}, {folder}", flush=True)
    if served.report:
        with Path(served.report).open("a", encoding="utf-8") as file:
            file.write(json.dumps(summary) + "\n")
    return summary


def enough(grid: Grid, clients: int, allowed_missing: int) -> None:
    """Raises ConfigError where Flower's own simulation has too few nodes: none will come later, so waiting for them is vain."""
    if type(grid).__name__ == "InMemoryGrid" and (there := present(grid, 60.0)) < clients - allowed_missing:
        raise ConfigError(
            f"clients = {clients}: Flower's simulation has {there} nodes, one client each; "
            f"flwr run . --federation-config 'num-supernodes={clients}' ..., or python -m experiments.run, which needs none"
        )


def present(grid: Grid, timeout_s: float) -> int:
    """How many nodes are connected, once their number has not changed for a second. Raises RoundFailed where none comes."""
    end, before = time.monotonic() + timeout_s, 0
    while time.monotonic() < end:
        now = len(list(grid.get_node_ids()))
        if now and now == before:
            return now
        before = now
        time.sleep(1.0)
    raise RoundFailed(f"after {timeout_s:g} s no node is connected")


def experiment(setup: Setup) -> dict[str, Any]:
    """What devices are told: how each makes its task, its samples, its model as this process did."""
    config = setup.config
    said: dict[str, Any] = {}
    for kind in ("task", "partition", "model"):
        choice = getattr(config, kind)
        said |= {kind: choice.name, **{f"{kind}.{k}": v for k, v in choice.params.items()}}
    if config.clients and "clients" in inspect.signature(config.task.thing).parameters:
        said["task-clients"] = config.clients
    numbers = ("seed", "dtype", "precision", "threads", "standardize", "augment", "validation")
    shapes = {"inputs": list(setup.task.inputs), "outputs": setup.task.outputs}
    return said | {k: getattr(config, k) for k in numbers} | shapes | {"clients": len(setup.partition)}
