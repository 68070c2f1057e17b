"""The same experiment through Flower's own simulation runtime: its nodes, its Ray actors, its messages.

The code is that of a deployment, the ServerApp's ``serve`` and the devices' ``clients.app:app``, so that only Flower's
transport differs. It is far slower than this project's engines: every message is serialised, and every node is polled.
"""

from collections.abc import Sequence

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from clients.app import app as client_app
from experiments.config.schema import Config
from experiments.deploy.server_app import ServeOptions, check_samples, serve
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim import RoundFailed
from fl_sim.executors.ray.cluster import working_folder_left_out
from fl_sim.logs.libraries import library_lines

Results = list[tuple[Summary, BaseException | None]]
"""The summary of each run, and its error where it failed."""


def run_through_flower(
    configs: Sequence[Config], num_cpus: float = 1.0, num_gpus: float = 0.0, trust_pickle: bool = False
) -> Results:
    """Run experiments one after another in one simulation of Flower's.

    Parameters
    ----------
    configs : sequence of Config
        Configs that ``experiments.deploy.server_app.deployable`` returned; all must have the same number of clients.
    num_cpus, num_gpus : float
        CPUs and GPUs that Ray reserves for the actor of a client.
    trust_pickle : bool (default: False)
        As of ``experiments.runs.execute.execute``.

    Raises
    ------
    ConfigError
        For bad input, before Flower starts.
    RoundFailed
        Where Flower's simulation ends without having run all experiments.
    """
    setups = [build(config) for config in configs]  # building shows bad input before Flower starts
    for setup in setups:
        check_samples(setup)
    counts = {len(setup.partition) for setup in setups}
    if len(counts) != 1:
        raise ValueError(f"clients = {sorted(counts)}: runs on the same nodes must have the same number of clients")
    results: Results = []
    failed: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            results.extend(serve(configs, grid, ServeOptions(run=str(context.run_id), trust_pickle=trust_pickle)))
        except BaseException as error:  # Flower would print it and go on as if nothing had happened
            failed.append(error)
            raise

    resources: dict[
        str, int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]
    ]
    resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    with library_lines.collected(), working_folder_left_out():
        run_simulation(server, client_app, counts.pop(), backend_config={"client_resources": resources})
    if failed:
        raise failed[0]
    if len(results) != len(configs):
        raise RoundFailed(f"Flower's simulation ended after {len(results)} of {len(configs)} runs without saying why")
    return results
