"""``python -m experiments.bench.apps.stock_app FOLDER CLIENTS JSON``: one app on Flower's own simulation.

JSON: the app's whole config. Exit code 0 where the ServerApp ended without an exception, else 1.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from experiments.apps.project import Project

CPUS = 2
"""Processors that Ray may use: one a client, so that two clients train at the same time."""


def configured(context: Context, config: Mapping[str, Any]) -> Context:
    """The same context with the app's config, which ``run_simulation`` leaves empty; both share the state."""
    return Context(context.run_id, context.node_id, context.node_config, context.state, dict(config))


class Configured(ClientApp):
    """A ClientApp that gets the app's config."""

    def __init__(self, app: ClientApp, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.app, self.config = app, config

    def __call__(self, message: Message, context: Context) -> Message:
        """The app's reply."""
        own = configured(context, self.config)
        try:
            return self.app(message, own)
        finally:
            context.state = own.state


class ConfiguredServer(ServerApp):
    """A ServerApp that gets the app's config, once all nodes are known; keeps the exception that ended it."""

    def __init__(self, app: ServerApp, config: Mapping[str, Any], clients: int) -> None:
        super().__init__()
        self.app, self.config, self.clients = app, config, clients
        self.error: BaseException | None = None

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run the app; on a busy machine it would begin before Flower has registered the nodes."""
        while len(list(grid.get_node_ids())) < self.clients:
            time.sleep(0.05)
        try:
            self.app(grid, configured(context, self.config))
        except BaseException as error:
            self.error = error
            raise


def main(folder: str, clients: str, config: str) -> int:
    """Run the app; returns the exit code."""
    sys.path.insert(0, folder)
    values, apps = json.loads(config), []
    for reference in Project.read(str(Path(folder))).components.values():
        module, _, name = reference.partition(":")
        apps.append(getattr(import_module(module), name))
    server = ConfiguredServer(apps[0], values, int(clients))
    backend: Any = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": CPUS}}
    run_simulation(server, Configured(apps[1], values), int(clients), backend_config=backend)
    return int(server.error is not None)


if __name__ == "__main__":
    exit_code = 1
    try:
        exit_code = main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # where Ray did not start, the ServerApp waits for ever in Flower's thread
