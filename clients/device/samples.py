"""The samples of one device: its part of a shared data set, or a folder of its own. No paper.

What to make is said by the server: names and numbers of task and partition in one flat mapping, ``said`` (``task``,
``task.alpha``, ``partition``, ``partition.seed``, ``clients``, ``inputs``, ``outputs`` ...). A device keeps its own
samples only, and those that cost work to make on its disk, because each message is answered by a new process.

Legend: n the device's samples.
"""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.device.folder import from_folder
from clients.device.partition import DevicePartition
from clients.device.sample_cache import cached_samples
from clients.device.spec import ExperimentSpec
from clients.shares import divided, prepared
from fl_sim import registry
from fl_sim.dotted import table
from fl_sim.learning.task import Task

PACKAGES = {"task": "clients.tasks", "partition": "clients.partitions", "model": "clients.models"}


def component(kind: str, said: ExperimentSpec) -> tuple[Any, dict[str, Any]]:
    """What ``said[kind]`` names, and its parameters.

    Of what ships here only the one module is imported. Raises ValueError.
    """
    name = str(said[kind])
    params = table(said, kind)
    if ":" not in name:
        try:
            found = registry.offered(importlib.import_module(f"{PACKAGES[kind]}.{name.replace('-', '_')}"), kind)
        except ImportError:
            found = {}
        if name in found:
            return found[name], params
    return registry.find(PACKAGES[kind], kind, name), params


def own_samples(said: ExperimentSpec, client: int, data_dir: str) -> tuple[Task, DevicePartition]:
    """The task on this device's samples (training part, then held-out part), without a test set.

    ``data_dir`` : a folder of the device's own; empty: client ``client`` of the partition that ``said`` names. Raises
    ValueError that says what is wrong.
    """
    clients = int(said["clients"])
    if not 0 <= client < clients:
        raise ValueError(
            f"partition-id = {client}: this experiment has {clients} clients; it must be one of 0..{clients - 1}"
        )
    if data_dir:
        return from_folder(said, client, Path(data_dir).expanduser())
    make, params = component("task", said)
    if "data_dir" in inspect.signature(make).parameters:
        return _part(said, client, make, params)  # its pictures are cached already, and may change
    return cached_samples(said, client, lambda: _part(said, client, make, params))


# A part of a shared data set ----------------------------------------------------------------------------------------


def _part(said: ExperimentSpec, client: int, make: Any, params: Mapping[str, Any]) -> tuple[Task, DevicePartition]:
    """This client's part, found as a simulation finds it: the whole is made, divided, and let go."""
    task: Task = make(**params, **({"clients": said["task-clients"]} if "task-clients" in said else {}))
    divide, options = component("partition", said)
    seed, held_out = int(options.pop("seed", 0)), float(options.pop("held_out", 0.0))
    validation, flags = float(said.get("validation", 0.0)), [bool(said.get(k)) for k in ("standardize", "augment")]
    task, _ = prepared(task, seed, validation, *flags)
    clients, name = int(said["clients"]), str(said["partition"])
    partition = divided(task, divide, clients, seed, held_out, name, **options)
    if len(partition) != clients:
        raise ValueError(f"partition.name = {name!r}: makes {len(partition)} clients here, {clients} on the server")
    rows = torch.from_numpy(np.ascontiguousarray(partition.client(client)))
    own = DevicePartition(client, len(partition), *partition.sizes(client))
    return replace(task, train={k: v[rows] for k, v in task.train.items()}, test={}, labels=None, clients=None), own
