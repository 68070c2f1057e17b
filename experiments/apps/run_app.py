"""``python -m experiments.run --app PATH``: run an ordinary Flower app with round logs, exact failures and fixed seeds.

``experiments.apps.serverapp_run`` describes how it runs. Exit codes are those of ``experiments.run``.
"""

import platform
import sys
import threading
import traceback
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from experiments.apps.app_log import AppLog
from experiments.apps.project import ROUNDS, Project, imported
from experiments.apps.run_config import read_run_config
from experiments.apps.serverapp_run import ServerAppRun, Summary
from experiments.apps.stored_apps import SIGNATURE, signature
from experiments.command_ends import exit_code, reason
from experiments.config.schema import Config
from experiments.provenance import of_run
from fl_sim import RoundFailed, SimulationGrid, rng
from fl_sim.errors import ConfigError
from fl_sim.leaving import no_exit
from fl_sim.logs.columns import SCHEMA
from fl_sim.wire import flower

SETTINGS = ("app", "clients", "rounds", "seed", "failures", "threads", "out")
"""Settings that may be given with ``--app``; the app's own code and config decide the rest."""

REASONS = {
    "engine": "its ClientApp is called once a message, one client after another in this process",
    "cohort": "its strategy chooses the clients of a round (as a rule by fraction-train in its own config)",
}
"""Why a setting means nothing to an app, where there is more to say."""
_RUNNING = threading.Lock()
"""Held while an app runs."""


def run_app(
    path: str,
    config: Config,
    explicit: Collection[str] = (),
    app_config: Mapping[str, object] | None = None,
    run_config: str = "",
    quiet: bool = True,
) -> Summary:
    """Run a Flower project to its end. The reason of a failure is printed on stderr.

    Parameters
    ----------
    path : str
        The project's folder.
    config : Config
        Settings of the run; only ``SETTINGS`` count.
    explicit : collection of str
        Keys of ``config`` that the user set: if ``rounds`` is among them, it overrides the app's ``num-server-rounds``.
    app_config : mapping, optional
        Values that override those of the app's own config, from the config.toml of an earlier run.
    run_config : str
        ``--run-config``: pairs that override all of these.
    quiet : bool
        Whether progress bars and Flower's own messages are left out.

    Returns
    -------
    dict
        The fields of summary.json.

    Raises
    ------
    ConfigError
        For bad input, the message names the setting; and where another app runs in this process.
    """
    project, config = plan(path, config, explicit, app_config, run_config)
    if not _RUNNING.acquire(blocking=False):
        why = "another Flower app runs in this process, whose modules and random generators both would use"
        raise ConfigError(f"app = {path!r}: {why}; start it afterwards, or in a process of its own")
    try:
        return _run(project, config, explicit, quiet)
    finally:
        _RUNNING.release()


def _run(project: Project, config: Config, explicit: Collection[str], quiet: bool) -> Summary:
    """Run a project that has been read; see ``run_app``."""
    torch.set_num_threads(config.threads)
    origin = of_run()  # git runs before the app, whose own processes are watched
    with rng.keyed_globals(rng.key(config.seed, "app")), imported(project) as (server_app, client_app):
        grid = SimulationGrid(client_app, config.clients, seed=config.seed, run_config=project.run_config)
        name = f"{project.name}-seed{config.seed}"
        with AppLog.create(Path(config.out), name, to_toml(project, config, explicit)) as log:
            log.event(
                "start",
                schema=SCHEMA,
                app=str(project.folder),
                clients=config.clients,
                run_config=project.run_config,
                machine=platform.machine(),
                **origin,
            )
            run = ServerAppRun(project, config, quiet, log, grid)
            with no_exit():
                error = run.run(server_app)
            summary = run.summary(error)
            log.summary(summary)
    if error is not None:
        explain(error, summary)
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(exit_code(error))
    return summary


def plan(
    path: str,
    config: Config,
    explicit: Collection[str],
    app_config: Mapping[str, Any] | None = None,
    run_config: str = "",
) -> tuple[Project, Config]:
    """(the project with the app's final config, the run's config with the number of clients). Raises ConfigError."""
    project = Project.read(path)
    project = replace(project, run_config={**project.run_config, **(app_config or {})})
    for key in explicit:
        if key not in SETTINGS:
            allowed = ", ".join((*SETTINGS[1:], "run_config"))
            why = REASONS.get(key, "its own pyproject.toml rules")
            raise ConfigError(f"{key}: means nothing to a Flower app: {why}; with --app go {allowed}")
    changed = read_run_config(run_config, project.run_config) if run_config else {}
    if ROUNDS in changed and "rounds" in explicit:
        raise ConfigError(f"rounds = {config.rounds}: run_config sets {ROUNDS} too; give one of them")
    project = replace(project, run_config={**project.run_config, **changed})
    if "rounds" in explicit:
        if ROUNDS not in project.run_config:
            raise ConfigError(
                f"rounds = {config.rounds}: the app's config has no {ROUNDS} that could be set; leave it out"
            )
        project = replace(project, run_config={**project.run_config, ROUNDS: config.rounds})
    return project, replace(config, clients=config.clients or project.supernodes or flower.DEFAULT_NODES)


def describe(
    path: str,
    config: Config,
    explicit: Collection[str],
    app_config: Mapping[str, object] | None = None,
    run_config: str = "",
) -> dict[str, object]:
    """Facts of the run that ``--dry-run`` prints; the app is imported, but not started."""
    project, config = plan(path, config, explicit, app_config, run_config)
    with imported(project):
        facts = {
            "app": str(project.folder),
            "name": project.name,
            **project.components,
            "clients": config.clients,
            "seed": config.seed,
        }
    return facts | {f"config {key}": value for key, value in project.run_config.items()}


def to_toml(project: Project, config: Config, explicit: Collection[str]) -> str:
    """The run's settings and the app's config as TOML: it repeats the run even where pyproject.toml has changed."""
    settings = {
        "app": str(project.folder),
        **{k: getattr(config, k) for k in SETTINGS[1:] if k != "rounds" or k in explicit},
    }
    title = f"# One run of the Flower app {project.name}: "
    title += "python -m experiments.run THIS_FILE repeats it while its code is the same.\n"
    signed = {SIGNATURE: signature(str(project.folder), project.run_config)}
    return title + tomli_w.dumps({**settings, **signed, "app_config": project.run_config})


def explain(error: BaseException, summary: Summary) -> None:
    """Print on stderr why a run failed."""
    if isinstance(error, RoundFailed):
        print(f"run failed: {error}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print(reason(error), file=sys.stderr)
    else:
        traceback.print_exception(error)
    print(f"the last good model (round {summary['rounds']}) and the logs are in {summary['run_dir']}", file=sys.stderr)
