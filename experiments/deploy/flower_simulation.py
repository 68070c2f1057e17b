"""The same experiment through Flower's own simulation runtime: its nodes, its Ray actors, its messages. No paper.

What runs is what is deployed: the ServerApp's ``serve`` and the devices' ``clients.app:app``, so that all that differs from a
deployment is Flower's transport. Slower than the engines here, by far: every message is serialised, every node is polled.
"""

from collections.abc import Sequence

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from clients.app import app as client_app
from experiments.config.schema import Config
from experiments.deploy.server_app import Served, serve
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim import RoundFailed
from fl_sim.executors.ray.cluster import working_folder_left_out
from fl_sim.wire import flower

Results = list[tuple[Summary, BaseException | None]]


def run_through_flower(configs: Sequence[Config], num_cpus: float = 1.0, num_gpus: float = 0.0) -> Results:
    """Runs on one simulation of Flower's: (summary, the error of a failed run) of each. Raises ConfigError for bad input.

    All must have the same number of clients; each is a config that ``experiments.deploy.server_app.deployable`` has passed.
    ``num_cpus``, ``num_gpus`` : what Ray reserves for a client's actor.
    """
    counts = {len(build(config).partition) for config in configs}  # what is wrong is said before Flower starts
    if len(counts) != 1:
        raise ValueError(f"clients = {sorted(counts)}: runs on the same nodes must have the same number of clients")
    results: Results = []
    failed: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            results.extend(serve(configs, grid, Served(run=str(context.run_id))))
        except BaseException as error:  # Flower would print it and go on as if nothing had happened
            failed.append(error)
            raise

    resources: dict[
        str, int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]
    ]
    resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    with flower.quiet(), working_folder_left_out():
        run_simulation(server, client_app, counts.pop(), backend_config={"client_resources": resources})
    if failed:
        raise failed[0]
    if len(results) != len(configs):
        raise RoundFailed(f"Flower's simulation ended after {len(results)} of {len(configs)} runs without saying why")
    return results
