"""``python -m experiments.run --app PATH``: an ordinary Flower app, unchanged, with our logs, true failures and reproducibility. No paper.

What runs is described in ``experiments.apps.serverapp_run``. Exit codes are those of ``experiments.run``.
"""

import platform
import sys
import traceback
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
import torch

from experiments.apps.app_log import AppLog
from experiments.apps.project import ROUNDS, Project, imported
from experiments.apps.serverapp_run import Session, Summary
from experiments.config.schema import Config
from fl_sim import RoundFailed, SimulationGrid, rng
from fl_sim.errors import ConfigError

SETTINGS = ("app", "clients", "rounds", "seed", "failures", "threads", "out")
"""What a call with ``--app`` may set; the rest is the app's own."""


def run_app(
    path: str,
    config: Config,
    quiet: bool = True,
    said: Collection[str] = (),
    app_config: Mapping[str, Any] | None = None,
) -> Summary:
    """Run the Flower project in the folder ``path`` to its end; returns the fields of summary.json.

    ``said`` are the keys that were set, as opposed to defaults: ``rounds`` among them overrides the app's own
    ``num-server-rounds``. ``app_config`` replaces the app's own config. Why a run failed is said on stderr. Raises
    ConfigError that names the key for bad input.
    """
    project, config = plan(path, config, said, app_config)
    torch.set_num_threads(config.threads)
    with rng.keyed_globals(rng.key(config.seed, "app")), imported(project) as (server_app, client_app):
        grid = SimulationGrid(client_app, config.clients, seed=config.seed, run_config=project.run_config)
        name = f"{project.name}-seed{config.seed}"
        with AppLog.create(Path(config.out), name, to_toml(project, config, said)) as log:
            log.event(
                "start",
                app=str(project.folder),
                clients=config.clients,
                run_config=project.run_config,
                machine=platform.machine(),
            )
            session = Session(project, config, quiet, log, grid)
            error = session.run(server_app)
            summary = session.summary(error)
            log.summary(summary)
    if error is not None:
        explain(error, summary)
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(130)
    return summary


def plan(
    path: str, config: Config, said: Collection[str], app_config: Mapping[str, Any] | None = None
) -> tuple[Project, Config]:
    """The project with its config as it will be, and our config with the number of clients. Raises ConfigError."""
    project = Project.read(path)
    project = replace(project, run_config={**project.run_config, **(app_config or {})})
    for key in said:
        if key not in SETTINGS:
            raise ConfigError(
                f"{key}: means nothing to a Flower app, whose own pyproject.toml rules; with --app go {', '.join(SETTINGS[1:])}"
            )
    if "rounds" in said:
        if ROUNDS not in project.run_config:
            raise ConfigError(
                f"rounds = {config.rounds}: the app's config has no {ROUNDS} that could be set; leave it out"
            )
        project = replace(project, run_config={**project.run_config, ROUNDS: config.rounds})
    return project, replace(config, clients=config.clients or project.supernodes or 10)


def describe(
    path: str, config: Config, said: Collection[str], app_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What would run, for ``--dry-run``; the app is imported, not started."""
    project, config = plan(path, config, said, app_config)
    with imported(project):
        facts = {
            "app": str(project.folder),
            "name": project.name,
            **project.components,
            "clients": config.clients,
            "seed": config.seed,
        }
    return facts | {f"config {key}": value for key, value in project.run_config.items()}


def to_toml(project: Project, config: Config, said: Collection[str]) -> str:
    """The run's settings and the app's own config as TOML: it repeats the run, also after the app's pyproject.toml has changed."""
    settings = {
        "app": str(project.folder),
        **{k: getattr(config, k) for k in SETTINGS[1:] if k != "rounds" or k in said},
    }
    title = f"# One run of the Flower app {project.name}: python -m experiments.run THIS_FILE repeats it while its code is the same.\n"
    return title + tomli_w.dumps({**settings, "app_config": project.run_config})


def explain(error: BaseException, summary: Summary) -> None:
    """Say on stderr why a run failed."""
    if isinstance(error, RoundFailed):
        print(f"run failed: {error}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        traceback.print_exception(error)
    print(f"the last good model (round {summary['rounds']}) and the logs are in {summary['run_dir']}", file=sys.stderr)
