"""The workers of this process: Ray actors that are started, replaced when they die, and shut down.

A process has one set of workers and keeps it for its next run, because a new worker takes seconds to start. It ends
with ``shut_down_workers`` or with the process.
"""

import atexit
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
from torch import Tensor

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.cluster import (
    connect,
    connection,
    disconnect,
    environment,
    one_line,
    ray,
    started_here,
    worker_traceback,
    workers_per_node,
)
from fl_sim.executors.ray.local_processes import check_alive, has_died
from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.serialize import LARGE, ArraySharing, identity
from fl_sim.executors.ray.work_items import WorkerLost, WorkItem
from fl_sim.executors.ray.worker import Worker, versions
from fl_sim.executors.ray.worker_handle import LearnerMessage, WorkerHandle

START_TIMEOUT_S = 180.0
"""Longest wait for a first worker."""
MAX_FAILED_STARTS = 3
"""The round fails when this many workers in a row have died before they were ready."""


class RayWorkers:
    """The workers of this process, an implementation of ``fl_sim.executors.ray.work_items.Workers``.

    Raises RoundFailed where Ray cannot be started or reached.
    """

    def __init__(self, settings: Ray, count: int, store_bytes: int) -> None:
        self.settings, self.count = settings, count
        self.handles: dict[int, WorkerHandle] = {}
        self._next_number = self._failed_starts = 0
        self._shared_arrays: dict[object, tuple[np.ndarray, object]] = {}
        """Identity of an array -> (the array, its reference in the object store)."""
        self._used_by: dict[str, set[object]] = {}
        """Name of a run -> identities of the shared arrays that it reads."""
        self._learner: LearnerMessage
        connect(settings.address, max(os.cpu_count() or 1, math.ceil(count * settings.num_cpus)), store_bytes)
        self.connection = connection()
        options: dict[str, object] = {
            "num_cpus": settings.num_cpus,
            "num_gpus": settings.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if not started_here():
            options |= {"runtime_env": {"env_vars": environment()}, "scheduling_strategy": "SPREAD"}
        elif not workers_per_node(ray().cluster_resources(), settings):
            raise RoundFailed(f"engine = 'ray': no worker fits on this machine: {self._requirements()}")
        self._cpus = ray().cluster_resources().get("CPU", 0)
        self._class = ray().remote(Worker).options(**options)

    def fits_connection(self, settings: Ray, count: int) -> bool:
        """Whether the Ray that these workers belong to can serve a run with these settings."""
        if connection() != self.connection or settings.address != self.settings.address:
            return False
        return not started_here() or count * settings.num_cpus <= self._cpus

    def fits_workers(self, settings: Ray) -> bool:
        """Whether these workers reserve the CPUs and GPUs that a run's settings require."""
        return (settings.num_cpus, settings.num_gpus) == (self.settings.num_cpus, self.settings.num_gpus)

    def start(self, count: int) -> None:
        """Have at least ``count`` workers, ready or starting; only ``count`` get work. Call ``send_learner`` next."""
        self.count = count
        while len(self.handles) < count:
            self.handles[self._next_number] = WorkerHandle(self._next_number, self._class.remote())
            self._next_number += 1

    def send_learner(self, message: LearnerMessage) -> None:
        """Send a run's learner to all workers, and later to those that replace lost ones."""
        self._learner = message
        for handle in self.handles.values():
            handle.send_learner(message)

    def put(self, value: object) -> object:
        """Copy an object into the object store; returns a reference."""
        check_alive()
        return ray().put(value)

    def array_sharing(self, run: str, samples: Iterable[Tensor]) -> ArraySharing:
        """A function for ``pack`` that replaces samples and large arrays by references into the object store.

        An array is stored once for all runs that use it. Other tensors (a module's own) are copied to each worker,
        because code may write into them.
        """
        addresses = {x.data_ptr() for x in samples}

        def share(array: np.ndarray, is_tensor: bool) -> object:
            if array.nbytes < LARGE or (is_tensor and array.ctypes.data not in addresses):
                return array
            key = identity(array)
            if key not in self._shared_arrays:
                self._shared_arrays[key] = array, self.put(array)
            self._used_by.setdefault(run, set()).add(key)
            return self._shared_arrays[key][1]

        return share

    def forget_run(self, run: str) -> None:
        """Drop what workers keep of a run that is over.

        Its shared arrays stay until ``drop_unused_arrays``, for the next run.
        """
        self._used_by.pop(run, None)
        for handle in self.handles.values():
            keys = [key for key in handle.loaded if key.startswith(run + "/")]
            handle.loaded -= set(keys)
            if keys and connection() == self.connection and not has_died():
                handle.actor.forget.remote(keys)

    def drop_unused_arrays(self) -> None:
        """Remove the shared arrays that no current run reads."""
        for key in set(self._shared_arrays).difference(*self._used_by.values()):
            del self._shared_arrays[key]

    def close(self) -> None:
        """End all workers."""
        handles, self.handles = self.handles, {}
        for handle in handles.values() if connection() == self.connection and not has_died() else ():
            with suppress(Exception):  # it may have ended already
                ray().kill(handle.actor)

    # The protocol ``Workers`` --------------------------------------------------------------------------------------

    def ready(self) -> Sequence[int]:
        """Numbers of the workers that have started."""
        return [number for number, handle in self.handles.items() if handle.ready][: self.count]

    def send(self, worker: int, item: WorkItem) -> object:
        """Send an item to a worker; returns the reference of its result."""
        check_alive()
        return item.send(self.handles[worker])

    def wait(self, futures: Sequence[object], block: bool, limit_s: float = math.inf) -> Sequence[object]:
        """The references whose results have arrived; with ``block`` one at least, unless ``limit_s`` seconds are over.

        Raises RoundFailed where no worker starts, or where one has other versions.
        """
        start = time.monotonic()
        while True:
            check_alive()
            starting = {handle.starting: handle for handle in self.handles.values() if not handle.ready}
            waited = [*futures, *starting]
            timeout = min(1.0, max(limit_s - (time.monotonic() - start), 0)) if block else 0
            done = set(ray().wait(waited, num_returns=1, timeout=timeout)[0]) if waited else set()
            if done and len(waited) > 1:
                done |= set(ray().wait(waited, num_returns=len(waited), timeout=0)[0])
            for future in done & starting.keys():
                self._check_started(starting[future])
            if done or not block or time.monotonic() - start >= limit_s:
                return [future for future in futures if future in done]
            if not futures and time.monotonic() - start > START_TIMEOUT_S:
                raise RoundFailed(
                    f"engine = 'ray': no worker has started within {START_TIMEOUT_S:.0f} s: {self._requirements()}"
                )

    def result(self, future: object) -> tuple[object, float]:
        """What a worker returned. Raises WorkerLost, or RoundFailed where the worker lives and raised an exception."""
        errors = ray().exceptions
        check_alive()
        try:
            value, seconds = ray().get(future)
        except errors.RayTaskError as error:
            cause = f"{type(error.cause).__name__}: {error.cause}"
            raise RoundFailed(f"engine = 'ray': {cause}{worker_traceback(error)}") from error
        except errors.RayError as error:
            check_alive()  # a worker ends with the raylet that started it
            raise WorkerLost(one_line(error)) from error
        return value, seconds

    def replace(self, worker: int) -> dict[str, object]:
        """Forget a lost worker and start another one."""
        handle = self.handles.pop(worker)
        with suppress(Exception):
            ray().kill(handle.actor)  # it may be alive and only out of reach
        self._start_missing()
        return {"node": handle.facts["node"]}

    def cancel(self, future: object) -> None:
        """Give up a result: an item that waits is not begun, one that is being computed is finished and ignored.

        Where the connection has ended Ray is not called, because it would open a new connection.
        """
        with suppress(Exception):
            if connection() == self.connection and not has_died():
                ray().cancel(future)

    def clock(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()

    def _start_missing(self) -> None:
        self.start(self.count)
        self.send_learner(self._learner)

    def _requirements(self) -> str:
        there = {k: v for k, v in ray().cluster_resources().items() if k in ("CPU", "GPU")}
        needed = f"{self.settings.num_cpus:g} CPUs and {self.settings.num_gpus:g} GPUs (ray.num_cpus, ray.num_gpus)"
        return f"each needs {needed}, there are {there}"

    def _check_started(self, handle: WorkerHandle) -> None:
        """Mark a worker as ready, or replace it where it died while it started."""
        try:
            facts = ray().get(handle.starting)
        except ray().exceptions.RayError as error:
            self._failed_starts += 1
            del self.handles[handle.number]
            if self._failed_starts < MAX_FAILED_STARTS:
                self._start_missing()
            elif not self.handles:
                raise RoundFailed(
                    f"engine = 'ray': {self._failed_starts} workers in a row died as they started: {one_line(error)}"
                ) from error
            return
        self._failed_starts = 0
        if facts["versions"] != versions():
            here, there = versions(), facts["versions"]
            raise RoundFailed(
                f"engine = 'ray': node {facts['node']} has {there}, the driver {here}; "
                "bits would differ, install the same"
            )
        handle.facts, handle.ready = facts, True


_workers: RayWorkers | None = None


def workers_for(settings: Ray, count: int, store_bytes: int) -> RayWorkers:
    """The workers of this process for a run: ``count`` of them, ready or starting.

    Existing ones are used where their settings fit, else they are replaced by new ones. Raises RoundFailed where Ray or
    its workers cannot be started.

    Parameters
    ----------
    settings : Ray
        What each worker reserves, and the address of the cluster.
    count : int
        Number of workers.
    store_bytes : int
        Size of the object store, where Ray is started for this run.
    """
    global _workers
    if _workers is not None and not _workers.fits_connection(settings, count):
        shut_down_workers()
    if _workers is None or not _workers.fits_workers(settings):
        if _workers is not None:
            _workers.close()
        _workers = RayWorkers(settings, count, store_bytes)
        atexit.unregister(shut_down_workers)
        atexit.register(shut_down_workers)  # runs before Ray's own, which was registered when Ray was imported
    _workers.start(count)
    return _workers


def shut_down_workers() -> None:
    """End this process's workers, and Ray where it was started for them. The next run starts new ones."""
    global _workers
    old, _workers = _workers, None
    if old is not None:
        old.close()
    disconnect()
