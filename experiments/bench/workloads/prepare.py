"""``python -m experiments.bench.workloads.prepare``: writes the files that all systems of a workload read.

Data, partition, cohorts and initial model are computed once by this simulator. The command reads a job from stdin,
writes arrays into the job's folder and prints ``{"random": false, ...}``.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from experiments.bench.workloads.catalogue import Work
from experiments.bench.workloads.workload_config import random_task, settings
from experiments.config.recipe_files import make
from experiments.runs.setup import Setup, build
from fl_sim import Task, registry
from fl_sim.wire import records


def main() -> None:
    """Run the command."""
    job = json.loads(sys.stdin.read())
    print(json.dumps(prepare(Work(**job["work"]), Path(job["folder"]), job["rounds"])))


def prepare(work: Work, folder: Path, rounds: int) -> dict[str, object]:
    """Write the files for ``rounds`` rounds, with random arrays if the data set is not available.

    Returns
    -------
    ``random`` (whether the arrays are random), ``why`` (the reason, or None) and ``parameters`` (of the model).
    """
    if work.partition["name"] == "resample":  # only this simulator runs it: a small version shows if data exist
        work = replace(work, partition={"name": "iid"}, clients=10, cohort=1)
    why = ""
    if not work.random:
        try:
            task: Task = registry.find("clients.tasks", "task", work.task)()
            return {"random": False, "why": None, **write(work, task, folder, rounds)}
        except ValueError as error:
            why = str(error)
    work = replace(work, random=True)
    return {"random": True, "why": why, **write(work, random_task(work), folder, rounds)}


def write(work: Work, task: Task, folder: Path, rounds: int) -> dict[str, object]:
    """Write the files that ``SharedInputs`` reads: samples as stored, and the partition, cohorts and initial model."""
    setup = build(make(None, **settings(work, rounds, "runs", engine="loop")))
    parts = [setup.partition.client(c) for c in range(len(setup.partition))]
    mean, std = moments(task.train["x"]) if work.standardize else (np.zeros(1), np.ones(1))
    arrays = {
        **{f"{part}_{name}": getattr(task, part)[name].numpy() for part in ("train", "test") for name in ("x", "y")},
        "indices": np.concatenate(parts),
        "starts": np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        "cohorts": np.array([cohort(setup, number + 1) for number in range(rounds)]),
        "mean": mean.astype(np.float32),
        "std": std.astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    initial = records.decode(setup.initial)
    save_file({k: v.contiguous() for k, v in initial.items()}, folder / "initial.safetensors")
    return {"parameters": sum(v.numel() for v in initial.values())}


def moments(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, after the pixels are scaled to [0, 1].

    Parameters
    ----------
    x : images (N, channels, height, width), uint8.

    Returns
    -------
    Mean and standard deviation, each (channels, 1, 1).
    """
    channels = [channel.numpy() / 255 for channel in x.transpose(0, 1)]
    mean, std = (
        np.array([getattr(channel, name)() for channel in channels]).reshape(-1, 1, 1) for name in ("mean", "std")
    )
    return mean, std


def cohort(setup: Setup, server_round: int) -> list[int]:
    """The clients that our strategy samples in a round."""
    clients = {node: c for c, node in enumerate(sorted(setup.grid.get_node_ids()))}
    messages = setup.strategy.configure_train(server_round, setup.initial, setup.train_config, setup.grid)
    return [clients[message.metadata.dst_node_id] for message in messages]


if __name__ == "__main__":
    main()
