"""The connection to Ray, which is imported and started only where it is used.

This is the only file that uses private names of Ray: it starts Ray without three of its processes, in half the time.
"""

import functools
import importlib
import logging
import math
import os
import re
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.local_processes import Watchdog, check_alive, end_processes, has_died, processes_of_ray
from fl_sim.executors.ray.options import Ray
from fl_sim.logs.libraries import library_lines
from fl_sim.registry import HOME

INHERITED_PREFIXES = (
    "CUBLAS_",
    "GLIBC_",
    "KMP_",
    "MALLOC_",
    "MKL_",
    "NVIDIA_TF32_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "TORCH_",
)
"""Prefixes of environment variables that may change bits or speed: workers on other machines get them too."""
CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a cluster to answer."""
START_TRIES = 5
"""How often a Ray that is too slow to start is started."""


@functools.cache
def ray() -> Any:
    """Import Ray and return the module. Raises RoundFailed where it cannot be imported."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's next default, without its warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise RoundFailed(
            f"engine = 'ray': Ray cannot be imported ({error}); pip install ray, or use --engine loop"
        ) from error


_connections: dict[str, bool] = {}
"""The connections that ``connect`` opened -> whether it started Ray itself for them."""


def connect(address: str, num_cpus: int = 0, store_bytes: int = 0) -> None:
    """Connect this process to a Ray cluster, unless it is connected already.

    Parameters
    ----------
    address : str
        Of the cluster; empty: start Ray on this machine.
    num_cpus : int
        CPUs of a Ray that is started on this machine.
    store_bytes : int
        Size of its object store.

    Raises
    ------
    RoundFailed
        Where Ray cannot be reached or started, or where this process is connected to another cluster.
    """
    if ray().is_initialized():
        check_alive()
        here = ray().get_runtime_context().gcs_address
        if address not in ("", "auto", here):
            cure = "call ray.shutdown() first, or leave the address out"
            raise RoundFailed(
                f"ray.address = {address!r}: this process is connected to Ray at {here!r} already; {cure}"
            )
        return
    quiet = {"log_to_driver": False, "logging_level": "INFO"}
    for handler in library_lines.terminal("ray"):  # the other lines are in a file of the run
        handler.setLevel(logging.ERROR)
    try:
        with library_lines.collected(), _no_messages(), working_folder_left_out(), processes_of_ray():
            if address:
                _check_listening(address)
                ray().init(address=address, **quiet)
            else:
                with _fewer_processes():
                    _start(num_cpus=num_cpus, object_store_memory=_store_size(store_bytes), **quiet)
    except Exception as error:
        cure = "is a head running there (ray start --head)?" if address else "use --engine loop, or see Ray's logs"
        what = (
            f"ray.address = {address!r}: cannot be reached"
            if address
            else "engine = 'ray': Ray cannot be started on this machine"
        )
        raise RoundFailed(f"{what} ({type(error).__name__}: {error}); {cure}") from error
    _connections[connection()] = not address
    if not address:
        Watchdog().start()


def _start(**options: object) -> None:
    """Start Ray on this machine. Its processes have 30 s for it, which on a busy machine may be too few: try again.

    What is left of a start that was too slow is ended first; it would slow down the next one.
    """
    for left in reversed(range(START_TRIES)):
        try:
            ray().init("local", include_dashboard=False, **options)
            return
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            end_processes()


def started_here() -> bool:
    """Whether the Ray that this process is connected to was started by ``connect``."""
    return _connections.get(connection(), False)


def disconnect() -> None:
    """Undo ``connect``: stop a Ray that it started, or disconnect from a cluster.

    A connection that other code opened stays.
    """
    if _connections and connection() in _connections and not has_died():
        ray().shutdown()


def connection() -> str:
    """An identifier of the current connection to Ray; empty where there is none."""
    if not ray().is_initialized():
        return ""
    context = ray().get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


def max_workers(settings: Ray) -> int:
    """How many workers with these settings fit on this machine, or in the cluster at ``settings.address``; at least 1.

    Ray is imported only where an address is given. Raises RoundFailed where the cluster cannot be reached.
    """
    if settings.address or ("ray" in sys.modules and ray().is_initialized()):
        connect(settings.address)
        nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray().nodes() if node["Alive"]]
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        nodes = [{"CPU": cpus, "GPU": torch.cuda.device_count() if settings.num_gpus else 0}]
    return max(1, sum(workers_per_node(node, settings) for node in nodes))


def workers_per_node(node: Mapping[str, float], settings: Ray) -> int:
    """How many workers fit on a node with the resources ``node`` (CPU, GPU).

    A worker with a fraction of a GPU uses a single GPU.
    """
    by_cpu = math.floor(node.get("CPU", 0) / settings.num_cpus + 1e-9)
    if not settings.num_gpus:
        return by_cpu
    share, gpus = settings.num_gpus, node.get("GPU", 0)
    by_gpu = math.floor(gpus) * math.floor(1 / share + 1e-9) if share < 1 else math.floor(gpus / share + 1e-9)
    return min(by_cpu, by_gpu)


def environment() -> dict[str, str]:
    """Environment variables for workers of a Ray that other code started: INHERITED_PREFIXES, and PYTHONPATH."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith(INHERITED_PREFIXES)}
    return {**inherited, "PYTHONPATH": os.pathsep.join([*_paths(), "${PYTHONPATH}"])}


def one_line(error: Exception) -> str:
    """The message of an error of Ray, which has many lines, as one line of at most 800 characters."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:800]


def worker_traceback(error: object) -> str:
    """The traceback inside the worker, without colour codes."""
    return "\nIn the worker: " + re.sub(r"\x1b\[\d*m", "", str(error))


def _check_listening(address: str) -> None:
    """Raise OSError where no process listens at an address: Ray itself would wait for ever."""
    target = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _store_size(requested: int) -> int:
    """Bytes of the object store: as requested, at most 90 % of the free shared memory, at least 100 MiB.

    Unused pages cost nothing.
    """
    folder = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    free = int(folder.f_bavail * folder.f_frsize * 0.9) if folder else requested
    return max(min(requested, free), 100 * 2**20)


def _paths() -> list[str]:
    """The folders for workers' ``PYTHONPATH``: those that this process searches before installed packages, and HOME.

    ``PYTHONPATH`` puts folders before installed packages. A folder that this process searches after them, such as the
    current folder under the console script, must not be in it: a user's ``strategies.py`` in that folder would replace
    this project's package. ``ComputeSettings`` appends these folders later.
    """
    known = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    folders = [os.path.abspath(path) for path in sys.path if os.path.isdir(path or ".")]
    installed = next((n for n, path in enumerate(folders) if path in known), len(folders))
    return [path for path in dict.fromkeys([*folders[:installed], HOME]) if not path.startswith(known)]


@contextmanager
def _fewer_processes() -> Iterator[None]:
    """Let ``ray.init`` start neither its autoscaler nor its log monitor nor the server of its dashboard.

    That takes half the time, and 260 MB less. ``include_dashboard=False`` alone starts that server without its pages,
    and waits for it. Workers inherit the environment of this process; PYTHONPATH is set so that they import from the
    same folders.
    """
    parameter: Any = importlib.import_module("ray._private.parameter")
    services: Any = importlib.import_module("ray._private.services")
    paths = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*_paths(), *([paths] if paths else [])])
    try:
        params = functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=False)
        with (
            _replaced(parameter, "RayParams", params),
            _replaced(services, "start_api_server", lambda *args, **settings: ("", None)),
        ):
            yield
    finally:
        del os.environ["PYTHONPATH"]
        os.environ |= {} if paths is None else {"PYTHONPATH": paths}


@contextmanager
def working_folder_left_out() -> Iterator[None]:
    """While open, ``ray.init`` does not put the current folder first on the ``sys.path`` of its workers.

    A user's ``strategies.py`` there would replace this project's package. ``ComputeSettings`` gives workers the order
    of this process.
    """
    config: object = importlib.import_module("ray.job_config").JobConfig
    name = "_runtime_env_has_working_dir"  # Ray adds the folder unless the job brings a folder of its own
    with _replaced(config, name, lambda job: True) if hasattr(config, name) else nullcontext():
        yield


@contextmanager
def _no_messages() -> Iterator[None]:
    """While open, a new connection prints nothing to stdout, which may be JSON; lost workers are events of the log."""
    worker: object = importlib.import_module("ray._private.worker")
    with _replaced(worker, "listen_error_messages", lambda *args: None):
        yield


@contextmanager
def _replaced(module: object, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
