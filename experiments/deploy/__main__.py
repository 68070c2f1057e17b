"""``python -m experiments.deploy up --nodes 3 [--tls --auth] --recipe digits-deploy [--key value ...]``: a deployment.

It starts a SuperLink and SuperNodes on this machine; ``plan`` prints the commands for other machines, ``keys`` makes
certificates and keys. Exit codes of ``up``: 0 only if every round of every run completed; 1 for a failed run; 2 for bad
input; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from experiments.command_ends import ended, exit_code
from experiments.deploy import homes, instructions, keys
from experiments.deploy.local import Deployment, DeploymentOptions
from experiments.deploy.server_app import DEFAULT, parse_configs
from fl_sim import RoundFailed
from fl_sim.errors import ConfigError

HELP = """usage: python -m experiments.deploy up   [--nodes 3] [--tls] [--auth] [--recipe NAME] [--key value ...]
       python -m experiments.deploy plan --hosts SERVER,DEVICE,... [--port 8000] [--no_tls] [--no_auth]
                                        [--recipe NAME] [--key value ...]
       python -m experiments.deploy keys --hosts SERVER,DEVICE,... [--out keys]

up     a SuperLink and SuperNodes as processes of this machine; runs the recipe, writes the run folder, stops them
plan   prints the commands and files for machines with these names, and does nothing
keys   makes the certificates of SERVER and a key for each DEVICE in the folder keys

up also takes --node_timeout_s 120 (to wait for all nodes) and --timeout_s 3600 (for the replies of a phase)
--key value: any setting of python -m experiments.run; --resume RUN instead of a recipe resumes a run.
See docs/deployment.md."""
"""Text of ``--help``."""


@dataclass(frozen=True)
class Options:
    """Options of a call that are no settings of the experiment."""

    nodes: int = 0
    """SuperNodes; 0: as many as the recipe has clients."""
    tls: bool = False
    """Whether connections are encrypted (``up``)."""
    auth: bool = False
    """Whether nodes must have a registered key (``up``)."""
    recipe: str = DEFAULT
    """Name or path of the recipe."""
    node_timeout_s: float = 120.0
    """Seconds to wait for all nodes."""
    timeout_s: float = 3600.0
    """Seconds to wait for the replies of a phase."""
    silo_processes: int = 0
    """Processes that share each batch on each node, in a run with --silo.processes 1; 0: one (``up``)."""
    hosts: str = ""
    """The server's name and the devices' names, separated by commas."""
    port: int = 8000
    """Port of the server."""
    no_tls: bool = False
    """Whether connections are not encrypted (``plan``)."""
    no_auth: bool = False
    """Whether nodes need no registered key (``plan``)."""


USES = {
    "up": ("nodes", "tls", "auth", "recipe", "node_timeout_s", "timeout_s", "silo_processes"),
    "plan": ("hosts", "port", "no_tls", "no_auth", "recipe"),
    "keys": ("hosts",),
}
"""The options that each call takes."""
RANGES = {"nodes": (1, 10_000), "port": (1, 65_535), "node_timeout_s": (0.0, 1e7), "timeout_s": (0.0, 1e7)}
RANGES["silo_processes"] = (0, 256)
"""The least and the most of each option that is a number."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help") or "--help" in words:
        print(HELP)
        return 0
    try:
        if words[0] not in USES:
            raise ConfigError(f"{words[0]!r}: unknown; a call is up, plan or keys; see --help")
        options, rest = split(words[0], words[1:])
        if words[0] == "keys":
            return make_keys(options, rest)
        return up(options, rest) if words[0] == "up" else show_plan(options, rest)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        return exit_code(error)


def split(call: str, words: Sequence[str]) -> tuple[Options, list[str]]:
    """(options of a call: ``up``, ``plan`` or ``keys``; arguments for the experiment). Raises ConfigError."""
    hints, explicit, rest = get_type_hints(Options), dict[str, Any](), []
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not word.startswith("--") or key not in USES[call]:
            rest.append(word)
            continue
        if key in explicit:
            raise ConfigError(f"{key}: is given twice; give it once")
        if hints[key] is bool:
            if equals and text.lower() not in ("true", "false"):
                raise ConfigError(f"{key} = {text!r}: must be true or false")
            explicit[key] = text.lower() != "false"
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise ConfigError(f"{key}: has no value; give one, as in --{key} VALUE")
            text = left.pop(0)
        if not text.strip():
            raise ConfigError(
                f"{key} = {text!r}: is empty; an unset variable of the shell? Give a value, or leave it out"
            )
        try:
            explicit[key] = hints[key](text)
        except ValueError:
            raise ConfigError(f"{key} = {text!r}: must be a number") from None
        least, most = RANGES.get(key, (-math.inf, math.inf))
        if hints[key] is not str and not least <= explicit[key] <= most:
            raise ConfigError(f"{key} = {text}: must be a number from {least:g} to {most:g}")
    return Options(**explicit), rest


def up(options: Options, rest: Sequence[str]) -> int:
    """Start all processes, run the experiment, stop all processes. Raises ConfigError for bad input first."""
    if options.auth and not options.tls:
        raise ConfigError("auth = true: node keys need an encrypted connection; add --tls")
    args = experiment_words(options, rest)
    configs = parse_configs(args)
    nodes = options.nodes or configs[0].num_clients or 3
    if nodes < 1:
        raise ConfigError(f"nodes = {nodes}: must be at least 1")
    if any(config.num_clients != nodes for config in configs):
        if any(word.partition("=")[0] == "--clients" for word in rest):
            raise ConfigError(
                f"clients = {configs[0].clients}: one node is one client; leave it out, or --nodes {configs[0].clients}"
            )
        args += ["--clients", str(nodes)]
    configs = parse_configs(args)
    out = Path(configs[0].out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    data = str(Path(configs[0].data_dir).absolute()) if configs[0].data_dir else ""
    args = without(args, "--out", "--data_dir", "--data-dir") + (["--data_dir", data] if data else [])
    deployment_options = DeploymentOptions(
        nodes, options.tls, options.auth, args, out, len(configs), options.node_timeout_s, options.timeout_s, data
    )
    deployment_options = replace(deployment_options, silo_processes=options.silo_processes)
    for left in homes.remove_left():
        print(f"removed {left}, with its keys: a deployment that was killed left it", file=sys.stderr)
    with homes.new_home() as home:
        deployment = Deployment(deployment_options, home)
        try:
            with deployment.processes:
                return follow(deployment)
        finally:
            deployment.say("all processes of this deployment have ended")


def experiment_words(options: Options, rest: Sequence[str]) -> list[str]:
    """Arguments of ``experiments.run`` with absolute paths; there is no recipe where ``--resume RUN`` names a run."""
    for n, word in enumerate(rest):
        flag, equals, folder = word.partition("=")
        if flag == "--resume" and (equals or n + 1 < len(rest)):
            folder, following = (folder, rest[n + 1 :]) if equals else (rest[n + 1], rest[n + 2 :])
            if not folder.strip():
                raise ConfigError(f"resume = {folder!r}: is empty; an unset variable of the shell? Name a run folder")
            return [*rest[:n], "--resume", str(Path(folder).absolute()), *following]
    return [str(Path(options.recipe).absolute()) if options.recipe.endswith(".toml") else options.recipe, *rest]


def follow(deployment: Deployment) -> int:
    """Start the deployment and follow its run to the end. Returns the exit code."""
    try:
        deployment.up()
        status, summaries = deployment.follow(deployment.submit(deployment.options.args), deployment.options.runs)
    except RoundFailed as error:
        print(f"deployment failed: {error}\nlogs of its processes: {deployment.keep_logs()}", file=sys.stderr)
        return 1
    for summary in summaries:
        accuracy = "" if summary["accuracy"] is None else f", accuracy {summary['accuracy']:.4f}"
        result = f"{summary['status']}: {summary['rounds']} rounds{accuracy}, digest {summary['digest']}"
        deployment.say(f"{result}, {summary['run_dir']}")
        if summary["error"]:
            print(f"run failed: {summary['error']}", file=sys.stderr)
    deployment.say(f"Flower's status of the run: {status}")
    good = status == "finished:completed" and len(summaries) == deployment.options.runs
    if good and all(summary["status"] == "completed" for summary in summaries):
        return 0
    print(f"the run is {status}; logs of its processes: {deployment.keep_logs()}", file=sys.stderr)
    return 1


def without(words: Sequence[str], *flags: str) -> list[str]:
    """The arguments without these flags and their values."""
    kept, left = [], list(words)
    while left:
        word = left.pop(0)
        if word.partition("=")[0] in flags:
            if "=" not in word:
                left.pop(0)
            continue
        kept.append(word)
    return kept


def show_plan(options: Options, rest: Sequence[str]) -> int:
    """Print the commands for machines with these names. Returns the exit code."""
    server, *devices = hosts(options)
    if options.no_tls and not options.no_auth:
        raise ConfigError("no_tls = true: node keys need an encrypted connection; add --no_auth")
    args = [options.recipe, *rest]
    configs = parse_configs(args)
    if any(config.num_clients != len(devices) for config in configs):
        args += ["--clients", str(len(devices))]
        parse_configs(args)
    print(instructions.text(server, devices, options.port, not options.no_tls, not options.no_auth, args))
    return 0


def make_keys(options: Options, rest: Sequence[str]) -> int:
    """Write certificates and keys. Returns the exit code."""
    out = Path("keys")
    if rest:
        if rest[0] != "--out" or len(rest) != 2:
            raise ConfigError(f"{rest[0]!r}: unexpected; a call is keys --hosts SERVER,DEVICE,... [--out DIR]")
        out = Path(rest[1])
    server, *devices = hosts(options)
    keys.check_free(out, devices)
    keys.certificates(out, [server])
    for name in devices:
        keys.node_key(out, name)
    places = f"server.crt and server.key to {server}; NAME.key to the device NAME; ca.key to none"
    print(f"{out}: ca.crt goes to every machine; {places}")
    return 0


def hosts(options: Options) -> list[str]:
    """The server's name, then the names of the devices. Raises ConfigError."""
    names = [name.strip() for name in options.hosts.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"hosts = {options.hosts!r}: must be SERVER,DEVICE,... with different names")
    keys.check_names(names[0], names[1:])
    return names


if __name__ == "__main__":
    sys.exit(ended(main))
