"""What a run would do, in a few numbers, without doing it: ``--dry-run``. No paper."""

import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from experiments.runs.setup import Setup
from experiments.runs.trial import MARGIN, PROCESS_BYTES, STEPS, first_round, free_bytes, trial
from fl_sim import tree
from fl_sim.executors.ray.options import Ray
from fl_sim.population.partition import median
from fl_sim.wire import flower

MEGABYTE = 1e6


def describe(setup: Setup) -> dict[str, Any]:
    """Clients, samples a client, local steps, bytes, memory, engine: facts of the config, and of round 1 where a draw decides."""
    config, partition, learner = setup.config, setup.partition, setup.learner
    registered = len(partition) - config.holdout_clients
    kinds, every = partition.size_counts(registered), partition.size_counts()
    cohort = config.cohort or registered
    plans = first_round(setup)
    steps = np.array([order.steps for plan in plans for order in plan.orders])
    model = learner.loss.initial()
    size, sample = tree.num_bytes(model), sum(v[0].numel() * v.element_size() for v in learner.data.values())
    at_once = 1 if setup.engine.name == "loop" else config.chunk or min(config.block_size, cohort)
    return {
        "task": config.task.name,
        "partition": config.partition.name,
        "strategy": config.strategy.name,
        "model": config.model.name,
        "parameters": sum(v.numel() for k, v in model.items() if k in learner.loss.trainable),
        "seed": config.seed,
        "rounds": config.rounds,
        "clients": len(partition),
        "holdout_clients": config.holdout_clients,
        "cohort": cohort,
        "samples_min": int(kinds[:, 0].min()),
        "samples_median": median(kinds[:, 0], kinds[:, 2]),
        "samples_max": int(kinds[:, 0].max()),
        "held_out_samples": int((every[:, 1] * every[:, 2]).sum()),
        "samples_moved": partition.moved,
        "steps_min": int(steps.min()) if len(steps) else 0,
        "steps_median": float(np.median(steps)) if len(steps) else 0.0,
        "steps_max": int(steps.max(initial=0)),
        "blocks": len(plans),
        "bytes_model": size,
        "bytes_down_per_round": size * cohort,
        "bytes_up_per_round": size * cohort,
        "data_mb": round(sample * len(learner.data["y"]) / MEGABYTE, 3),
        "memory_mb": round((sample * len(learner.data["y"]) + size * (6 + 5 * at_once)) / MEGABYTE, 3),
        "engine": setup.engine.name,
        "engine_note": setup.engine.reason,
        "first_node": flower.FIRST_NODE,
    }


def predict(setup: Setup) -> tuple[dict[str, Any], Ray]:
    """(what a round will take, in a few numbers; Ray's settings with what the user left open filled in). Raises ClientFailed."""
    config, plans = setup.config, first_round(setup)
    learner = setup.learner
    tried = trial(setup, plans)
    device, model = learner.loss.device, tree.num_bytes(learner.loss.initial())
    loop = setup.engine.name == "loop"
    widest = max(len(plan.orders) for plan in plans)
    at_once = 1 if loop else min(config.chunk or widest, widest)
    copies = (
        3 + bool(config.local.momentum) + 2 * (config.local.optimizer != "sgd")
    )  # weights, gradient, update, moments
    own = max(copies * model + tried.activation_bytes, tried.device_bytes / at_once)
    base = (0.0 if device.type == "cuda" else PROCESS_BYTES) + 4 * model
    need, free = base + at_once * own, free_bytes(device) * MARGIN
    room = max(int((free - base) // own), 0)
    processes = max(int(free // need), 1)
    chosen = fill(config.ray, processes, len(plans), device)
    workers = chosen.num_workers if config.engine == "ray" else 1
    steps = sum(plan.steps if loop else plan.orders[0].steps for plan in plans)
    numbers = {
        "workers": workers,
        "gpu_fraction": chosen.num_gpus if config.engine == "ray" else float(device.type == "cuda"),
        "seconds_per_step": tried.seconds_per_step,
        "seconds_per_round": steps * tried.seconds_per_step / min(workers, len(plans)),
        "seconds_note": f"of training, from {min(STEPS, plans[0].orders[0].steps)} steps tried; evaluation comes on top",
        "worker_mb": round(need / MEGABYTE, 1),
        "free_mb": round(free_bytes(device) / MEGABYTE, 1),
        "fits": need <= free,
        "largest_chunk": min(room, widest),
    }
    return numbers, chosen


def fill(ray: Ray, processes: int, blocks: int, device: torch.device) -> Ray:
    """Ray's settings, with workers and GPU fraction chosen where they are 0: as many as fit in memory and have work."""
    cpus = max(int((os.cpu_count() or 1) / ray.num_cpus), 1)
    if device.type != "cuda":
        return replace(ray, num_workers=ray.num_workers or max(min(cpus, blocks, processes), 1))
    share = ray.num_gpus or 1 / max(min(ray.num_workers or cpus, processes, blocks), 1)
    fraction = ray.num_gpus or math.floor(share * 1000) / 1000
    return replace(
        ray,
        num_gpus=fraction,
        num_workers=ray.num_workers or max(int(1 / fraction), 1) * max(torch.cuda.device_count(), 1),
    )
