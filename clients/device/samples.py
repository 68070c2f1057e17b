"""The samples of one device: its part of a shared data set, or a folder of its own.

The server describes them by names and numbers of task and partition in one flat mapping, ``spec`` (``task``,
``task.alpha``, ``partition``, ``partition.seed``, ``clients``, ``inputs``, ``outputs`` ...). A device keeps its own
samples only. It stores on its disk those that take time to compute, because each message is answered by a new process.

Legend: n number of the device's samples.
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
from clients.feature_shift import shifted
from clients.shares import NEVER_TRAIN, Prepared, call, divided, laid_out, transformed, without_validation
from fl_sim import registry
from fl_sim.dotted import table
from fl_sim.learning.task import Task

PACKAGES = {"task": "clients.tasks", "partition": "clients.partitions", "model": "clients.models"}
"""The package in which names of each kind are found."""


def component(kind: str, spec: ExperimentSpec) -> tuple[Any, dict[str, Any]]:
    """The component that ``spec[kind]`` names, and its parameters.

    For a component of this project only its own module is imported. Raises ValueError for an unknown name.
    """
    name = str(spec[kind])
    params = table(spec, kind)
    if ":" not in name:
        try:
            found = registry.offered(importlib.import_module(f"{PACKAGES[kind]}.{name.replace('-', '_')}"), kind)
        except ImportError:  # no file of this name, or one that lacks a package: ``registry.find`` says which
            found = {}
        if name in found:
            return found[name], params
    return registry.find(PACKAGES[kind], kind, name), params


def own_samples(spec: ExperimentSpec, client: int, data_dir: str) -> tuple[Task, DevicePartition]:
    """The task on this device's samples (training part, then held-out part), without a test set.

    ``data_dir`` : a folder of the device's own; empty: client ``client`` of the partition that ``spec`` names. Raises
    ValueError for samples that do not suit the experiment.
    """
    clients = int(spec["clients"])
    if not 0 <= client < clients:
        raise ValueError(
            f"partition-id = {client}: this experiment has {clients} clients; it must be one of 0..{clients - 1}"
        )
    if data_dir:
        return from_folder(spec, client, Path(data_dir).expanduser())
    make, params = component("task", spec)
    if "data_dir" in inspect.signature(make).parameters:
        return _part(spec, client, make, params)  # such a task caches its pictures itself, and the files may change
    return cached_samples(spec, client, lambda: _part(spec, client, make, params))


# A part of a shared data set ----------------------------------------------------------------------------------------


def _part(spec: ExperimentSpec, client: int, make: Any, params: Mapping[str, object]) -> tuple[Task, DevicePartition]:
    """This client's part, as in a simulation: the whole task is built and divided, and only this part is kept."""
    arguments = {**params, **({"clients": spec["task-clients"]} if "task-clients" in spec else {})}
    arguments |= {k: spec.get(k, 0) for k in NEVER_TRAIN if k in inspect.signature(make).parameters}
    task = laid_out(call(make, arguments), params)
    divide, options = component("partition", spec)
    seed, held_out = int(options.pop("seed", 0)), float(options.pop("held_out", 0.0))
    strength = float(options.pop("feature_shift", 0.0))
    validation, clients, name = float(spec.get("validation", 0.0)), int(spec["clients"]), str(spec["partition"])
    how = Prepared(
        standardize=bool(spec.get("standardize")),
        standardize_on=str(spec.get("standardize_on", "all")),
        augment=bool(spec.get("augment")),
        never_train=sum(int(spec.get(k, 0)) for k in NEVER_TRAIN),
    )
    task, _ = without_validation(task, seed, validation)
    partition = divided(task, divide, clients, seed, held_out, name, **options)
    if len(partition) != clients:
        raise ValueError(f"partition.name = {name!r}: makes {len(partition)} clients here, {clients} on the server")
    task = shifted(task, partition, strength, seed, None if how.standardize else [client])
    task = transformed(task, partition, how)
    rows = torch.from_numpy(np.ascontiguousarray(partition.client(client)))
    own = DevicePartition(client, len(partition), *partition.sizes(client), partition.turns)
    return replace(task, train={k: v[rows] for k, v in task.train.items()}, test={}, labels=None, clients=None), own
