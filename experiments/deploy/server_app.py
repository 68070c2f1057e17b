"""The ServerApp: an experiment on real devices, with the settings, the logs and the run folder of a simulation.

It is started by ``flwr run . --run-config "args='digits-deploy --strategy fedprox --rounds 5'"``, where ``args`` are
the arguments of ``python -m experiments.run``. The devices run ``clients.app:app``. Both also run in Flower's own
simulation.
"""

import contextlib
import inspect
import io
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.device.state import KEPT
from clients.silo.silo_options import Silo
from experiments.config.asynchronous.asynchronous_settings import is_asynchronous, told
from experiments.config.command_line import parse
from experiments.config.plan_checks import NO_ATTACK, NO_DRIFT, check_idle, made
from experiments.config.schema import HONEST, Config
from experiments.runs.checks.coded_down import named
from experiments.runs.execute import execute
from experiments.runs.plan import check_used
from experiments.runs.resume import forked, resume
from experiments.runs.setup import Setup, build
from experiments.runs.summary import Summary
from experiments.runs.virtual_time.run_clock import virtual
from fl_sim import RoundFailed
from fl_sim.errors import ConfigError
from fl_sim.grids.deployed import DeployedGrid
from fl_sim.grids.exchange import Failures
from fl_sim.grids.nodes import Nodes
from fl_sim.grids.untrusted_replies.coded_replies import decoder_of
from fl_sim.wire.flower import keeping_identity
from strategies.codecs import NO_CODEC

DEFAULT = "digits-deploy"
"""The recipe of a run without ``args``; each connected node is then a client."""

app = ServerApp()


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server that are no settings of the experiment."""

    node_timeout_s: float = 300.0
    """Seconds to wait for the nodes of all clients."""
    timeout_s: float = 3600.0
    """Seconds to wait for the replies of a phase."""
    use_all_nodes: bool = False
    """Whether to set ``clients`` to the number of connected nodes."""
    report: str = ""
    """File to which the summary of each run is appended as a line of JSON; empty: none."""
    run: str = "run"
    """Name of the run on the devices, below which they keep their clients' states."""
    resume: str = ""
    """Folder of a run to resume; empty: none."""
    trust_pickle: bool = False
    """Whether to read a pickled part of a checkpoint that this user's key did not sign."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve the runs that ``args`` describes, one after another.

    An error ends Flower's run as failed: ConfigError for bad input, or the error of the first run that failed.
    """
    run_config = context.run_config
    words = shlex.split(str(run_config.get("args", "")))
    configs, resume, trust_pickle = parse_arguments(words or [DEFAULT])
    served = ServeOptions(
        node_timeout_s=float(run_config.get("node-timeout-s", 300.0)),
        timeout_s=float(run_config.get("timeout-s", 3600.0)),
        use_all_nodes=not words,
        report=str(run_config.get("report", "")),
        run=str(context.run_id),
        resume=resume,
        trust_pickle=trust_pickle,
    )
    failures = [error for _, error in serve(configs, grid, served) if error is not None]
    if failures:
        raise failures[0]


def parse_configs(words: Sequence[str]) -> Sequence[Config]:
    """The runs of a command line. Raises ConfigError for settings that devices cannot follow."""
    return parse_arguments(words)[0]


def parse_arguments(words: Sequence[str]) -> tuple[Sequence[Config], str, bool]:
    """(the runs of a command line, the folder of the run to resume or "", ``trust_pickle``).

    Raises like ``parse_configs``.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            call = parse(words)
    except SystemExit as error:  # --help
        raise ConfigError(f"args = {shlex.join(words)!r}: asks for help; ask python -m experiments.run") from error
    for key in ("app", "vmap_over", "dry_run", "track", "callback"):
        if getattr(call, key):
            raise ConfigError(f"{key} = {getattr(call, key)!r}: means nothing on devices; leave it out")
    return [deployable(config) for config in call.configs], call.resume, call.trust_pickle


def deployable(config: Config, simulated: bool = False) -> Config:
    """The config with the loop engine, as devices train. Raises ConfigError for settings that devices cannot follow.

    ``simulated``: in Flower's simulation, where this process has the samples of all clients.
    """
    if config.evaluate_train and not simulated:
        why = "devices train on samples that the server does not have; leave it out"
        raise ConfigError(f"evaluate_train = True: {why}")
    if config.log_drift:
        raise ConfigError(f"log_drift = true: {NO_DRIFT}; leave it out")
    if config.checkpoint_every > KEPT:
        why = f"devices keep their states of {KEPT} rounds; give at most that"
        raise ConfigError(f"checkpoint_every = {config.checkpoint_every}: {why}")
    if config.attack.name != HONEST:
        share = config.attack.params["share"]
        raise ConfigError(f"attack.name = {config.attack.name!r}, attack.share = {share:g}: {NO_ATTACK}; leave it out")
    if named(config)[0] != NO_CODEC:
        why = "coded changes of the model are simulated, and not sent to devices yet; leave it out"
        raise ConfigError(f"codec.down = {config.codec.params['down']!r}: {why}")
    if is_asynchronous(config.strategy):
        raise ConfigError(f"{told(config)}: asynchronous runs are simulated, and not on devices; leave it out")
    if found := virtual(config):
        raise ConfigError(f"{found}: about virtual time, and devices take the time that they take; leave it out")
    if config.client_timeout:
        why = "on devices the server waits for as long as --timeout-s (of experiments.deploy) says; leave it out"
        raise ConfigError(f"client_timeout = {config.client_timeout:g}: {why}")
    for field in fields(Silo):
        value = getattr(config.silo, field.name)
        if field.name not in ("processes", "shards") and value != field.default:
            why = "each device has processes of its own (node config silo-processes); leave it out"
            raise ConfigError(f"silo.{field.name} = {value!r}: {why}")
    if (share := config.partition.params.get("unseen_held_out")) is not None:
        why = "a device does not know whether it trains; set partition.held_out instead"
        raise ConfigError(f"partition.unseen_held_out = {share}: {why}")
    strategy = made(config)
    if config.validation_clients and strategy is not None and strategy.needs_validation and not simulated:
        why = f"strategy {config.strategy.name} chooses by their samples, which the server does not have; leave it out"
        raise ConfigError(f"validation_clients = {config.validation_clients}: {why}")
    if config.engine not in ("auto", "loop"):
        raise ConfigError(f"engine = {config.engine!r}: each device trains its one client on the loop; leave it out")
    for kind in ("task", "partition", "model", "strategy", "codec"):
        choice = getattr(config, kind)
        if choice.is_object or choice.name.startswith("__main__:"):
            raise ConfigError(
                f"{kind}.name = {choice.name!r}: an object does not travel to devices; give package.module:Name"
            )
    deployed = replace(config, engine="loop")
    check_idle(deployed)
    return deployed


def serve(
    configs: Sequence[Config], grid: Grid, served: ServeOptions
) -> Iterator[tuple[Summary, BaseException | None]]:
    """Run one experiment after another on the same nodes; yields (summary, error or None) of each."""
    nodes: Nodes | None = None
    for number, config in enumerate(configs):
        resumed = resume(Path(served.resume), config, served.trust_pickle) if served.resume else None
        if resumed is not None and resumed.finished is not None:
            yield report_summary(dict(resumed.finished), served), None
            continue
        if served.use_all_nodes:
            config = replace(config, clients=count_connected_nodes(grid, served.node_timeout_s), cohort=0)
        with keeping_identity():
            setup = build(config)
        check_samples(setup)
        if resumed is None:
            check_used(setup)
        check_fork(config, served.trust_pickle)
        allowed = Failures.parse(config.failures).allowed(len(setup.partition))
        check_node_count(grid, len(setup.partition), allowed)
        name = f"{served.run}-{number}"
        if resumed is not None and resumed.begin is not None:
            name = str(resumed.begin.facts.get("run", name))  # where the devices have their states
        known = nodes if nodes is not None and nodes.num_clients == len(setup.partition) else None
        deployed = DeployedGrid(
            grid,
            len(setup.partition),
            {**device_settings(setup), "run": name},
            holdout_clients=config.holdout_clients,
            allowed_missing=allowed,
            node_timeout_s=served.node_timeout_s,
            timeout_s=served.timeout_s,
            block_size=setup.config.block_size,
            statistics=setup.loss.buffers,
            trainable=setup.loss.trainable,
            loss=setup.loss,
            max_examples=config.system.max_examples,
            nodes=known,
            decoder=decoder_of(setup.learner),
        )
        nodes, deployed.validation_clients = deployed.nodes, config.validation_clients
        summary, error = execute(replace(setup, grid=deployed), True, (), resumed, {"run": name}, served.trust_pickle)
        yield report_summary(summary, served), error


def check_fork(config: Config, trust_pickle: bool) -> None:
    """Raise ConfigError for a fork of a simulation whose clients have states, since those lie on no device."""
    begin = forked(config, trust_pickle)
    if begin is not None and begin.states:
        why = f"{len(begin.states)} clients have states, which cannot be sent to devices"
        raise ConfigError(f"fork = {config.fork!r}: {why}; fork in a simulation, or change a number of the strategy")


def check_samples(setup: Setup) -> None:
    """Raise ConfigError where a client owns no sample, since its device would be waited for in vain."""
    idle = setup.partition.idle
    if len(idle):
        which = ", ".join(map(str, idle[:10])) + (f" and {len(idle) - 10} more" if len(idle) > 10 else "")
        what = f"clients {which} own no training sample, because all of theirs are in the test or validation share"
        raise ConfigError(f"partition.name = {setup.config.partition.name!r}: {what}; give each one, or leave them out")


def report_summary(summary: Summary, served: ServeOptions) -> Summary:
    """Print the summary and append it to the report, if there is one; returns it."""
    folder = Path(summary["run_dir"]).absolute()
    print(f"{summary['status']}: {summary['rounds']} rounds, digest {summary['digest']}, {folder}", flush=True)
    if served.report:
        with Path(served.report).open("a", encoding="utf-8") as file:
            file.write(json.dumps(summary) + "\n")
    return summary


def check_node_count(grid: Grid, clients: int, allowed_missing: int) -> None:
    """Raise ConfigError where Flower's own simulation has too few nodes, since no more of them will connect later."""
    if type(grid).__name__ != "InMemoryGrid":
        return
    nodes = count_connected_nodes(grid, 60.0)
    if nodes < clients - allowed_missing:
        cure = f"flwr run . --federation-config 'num-supernodes={clients}' ..., or python -m experiments.run"
        raise ConfigError(
            f"clients = {clients}: Flower's simulation has {nodes} nodes, one client each; {cure}, which needs none"
        )


def count_connected_nodes(grid: Grid, timeout_s: float) -> int:
    """Number of connected nodes, once it is the same for a second. Raises RoundFailed if it is 0 until the timeout."""
    end, before = time.monotonic() + timeout_s, 0
    while time.monotonic() < end:
        now = len(list(grid.get_node_ids()))
        if now and now == before:
            return now
        before = now
        time.sleep(1.0)
    raise RoundFailed(f"after {timeout_s:g} s no node is connected")


def device_settings(setup: Setup) -> dict[str, object]:
    """Settings by which each device builds the same task, partition and model as this process."""
    config = setup.config
    settings: dict[str, object] = {}
    for kind in ("task", "partition", "model"):
        choice = getattr(config, kind)
        settings |= {kind: choice.name, **{f"{kind}.{k}": v for k, v in choice.params.items() if v is not None}}
    if config.clients and "clients" in inspect.signature(config.task.component).parameters:
        settings["task-clients"] = config.clients
    numbers = ["seed", "dtype", "precision", "threads", "augment", "validation"]
    numbers += ["standardize", "standardize_on", "holdout_clients"]
    own = {k: v for k in ("set_metrics", "validation_clients") if (v := getattr(config, k))}
    if config.silo.processes:  # how many processes a device has for it is its own matter
        own["silo-shards"] = config.silo.shards
    shapes = {"inputs": list(setup.task.inputs), "outputs": setup.task.outputs}
    return settings | own | {k: getattr(config, k) for k in numbers} | shapes | {"clients": len(setup.partition)}
