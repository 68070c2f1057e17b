"""Predictions for a run before it starts: the facts that ``--dry-run`` prints, and the number of Ray workers."""

import math
import os
from dataclasses import replace

import numpy as np
import torch

from clients.silo.silo_checks import check_silo
from experiments.config.asynchronous.asynchronous_settings import check_asynchronous
from experiments.config.plan_checks import no_validation
from experiments.config.schema import NATURAL
from experiments.runs.checks.queries import check_queries
from experiments.runs.checks.unused_numbers import check_numbers
from experiments.runs.setup import Setup
from experiments.runs.trial import MARGIN, MEGABYTE, PROCESS_BYTES, STEPS, free_bytes, trial
from experiments.runs.virtual_time.deadline import check_deadline
from fl_sim import tree
from fl_sim.blocks.plan import BlockPlan, alone, plan_blocks
from fl_sim.errors import ConfigError
from fl_sim.executors.ray.options import Ray
from fl_sim.population.partition import median
from fl_sim.tree import Tree
from fl_sim.wire import flower
from fl_sim.wire.arrivals import AsynchronousStrategy
from strategies.base.strategy import Strategy


def training_clients(setup: Setup) -> int:
    """Number of clients that may train: all but those held out and those without samples."""
    return len(setup.partition.working(0, len(setup.partition) - setup.config.never_train))


def check_used(setup: Setup) -> None:
    """Raise ConfigError for a setting that would do nothing in this run, which only its data and network show."""
    config, task, loss = setup.config, setup.task, setup.loss
    if config.chunk and setup.engine.name == "loop":
        why = setup.engine.reason or "this run is on the loop"
        raise ConfigError(f"chunk = {config.chunk}: acts in the engine vmap, but {why}; leave it out")
    cohort, share = config.cohort or training_clients(setup), config.system.stragglers
    if share and not min(round(share * cohort), cohort - 1):
        raise ConfigError(f"system.stragglers = {share}: of {cohort} clients a round that is none; give a larger share")
    for key, value in (("target", config.target), ("stop.target", config.stop.target)):
        if value and "accuracy" not in loss.task.metrics:
            raise ConfigError(f"{key} = {value}: task {task.name} has no accuracy; leave it out, or bring the metric")
    if config.stop.rule and config.stop.on == "validation" and not (setup.validation or config.validation_clients):
        raise no_validation(config.stop.rule, config.validation)
    if config.validation and not setup.validation:
        what = f"of {task.num_train} training samples that is none"
        raise ConfigError(f"validation = {config.validation}: {what}; give a larger share, or leave it out")
    if config.task.params.get("class_axis") in (1, -1) and task.train["y"].ndim < 2:
        what = f"does nothing here: each sample of task {task.name} has one label"
        raise ConfigError(f"task.class_axis = {config.task.params['class_axis']}: {what}; leave it out")
    drawn = config.validation or config.partition.name != NATURAL
    drawn = drawn or any(config.partition.params.get(name) for name in ("held_out", "feature_shift"))
    if config.partition.params.get("seed") and not drawn and len(setup.partition) == task.num_clients:
        why = "each natural client is one client, so that nothing is drawn"
        raise ConfigError(f"partition.seed = {config.partition.params['seed']}: {why}; leave it out")
    if config.clients and config.partition.is_object and config.clients != len(setup.partition):
        what = f"the partition that was passed has {len(setup.partition)} clients"
        raise ConfigError(f"clients = {config.clients}: {what}; leave it out")
    check_numbers(setup)
    check_queries(setup)
    check_deadline(setup)
    if config.silo.processes:
        names = config.strategy.name, config.model.name, task.name
        check_silo(alone(first_round_plans(setup)[0])[0], setup.learner, sent(setup), config.silo.shards, *names)
    if isinstance(setup.strategy, AsynchronousStrategy):
        setup.strategy.check_asynchronous()
        check_asynchronous(config, training_clients(setup), setup.strategy)


def first_round_plans(setup: Setup) -> list[BlockPlan]:
    """Blocks of a round like the first one, but of the clients with the lowest ids, so that nothing has to be drawn."""
    learner, config, strategy = setup.learner, setup.config, setup.strategy
    carried = setup.train_config
    sent = strategy.round_settings(1, carried) if isinstance(strategy, Strategy) else carried
    settings = {**sent, "server-round": 1}
    lowest = setup.partition.working(0, len(setup.partition) - config.never_train)
    cohort = lowest[: config.together or len(lowest)]
    orders = ((position, c, settings) for position, c in enumerate(cohort))
    return plan_blocks(learner, "train", orders, {}, config.block_size)


def sent(setup: Setup) -> Tree:
    """What a message of the first round holds: the initial model without what stays at home, and the payload."""
    model, strategy = setup.loss.initial(), setup.strategy
    if not isinstance(strategy, Strategy):
        return model
    strategy.trainable, strategy.statistics = setup.loss.trainable, setup.loss.buffers
    return strategy.message_form(model)


def bytes_of_a_client(setup: Setup, model: Tree) -> tuple[int, int]:
    """(bytes of one message, of one reply): the model without what stays at home, and the payload of both."""
    strategy = setup.strategy
    if not isinstance(strategy, Strategy):
        return tree.num_bytes(model), tree.num_bytes(model)
    strategy.trainable, strategy.statistics = setup.loss.trainable, setup.loss.buffers
    return tree.num_bytes(strategy.message_form(model)), tree.num_bytes(strategy.reply_form(model))


def describe(setup: Setup) -> dict[str, object]:
    """Facts of a run: clients, samples per client, local steps, bytes, memory, engine.

    They follow from the config alone, apart from the local steps, which are those of ``first_round_plans``.
    """
    config, partition, learner = setup.config, setup.partition, setup.learner
    training = training_clients(setup)
    every = partition.size_counts()
    kinds = partition.size_counts(len(partition) - config.never_train)
    kinds = kinds[kinds[:, :2].any(1)]  # without clients that own no sample
    cohort = config.together or training
    plans = first_round_plans(setup)
    steps = np.array([order.steps for plan in plans for order in plan.orders])
    model = learner.loss.initial()
    size, sample = tree.num_bytes(model), sum(v[0].numel() * v.element_size() for v in learner.data.values())
    at_once = 1 if setup.engine.name == "loop" else config.chunk or min(config.block_size, cohort)
    down, up = bytes_of_a_client(setup, model)
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
        "validation_clients": config.validation_clients,
        "cohort": cohort,
        "samples_min": int(kinds[:, 0].min()),
        "samples_median": median(kinds[:, 0], kinds[:, 2]),
        "samples_max": int(kinds[:, 0].max()),
        "held_out_samples": int((every[:, 1] * every[:, 2]).sum()),
        "samples_moved": partition.moved,
        "clients_filled": partition.filled,
        "steps_min": int(steps.min()) if len(steps) else 0,
        "steps_median": float(np.median(steps)) if len(steps) else 0.0,
        "steps_max": int(steps.max(initial=0)),
        "blocks": len(plans),
        "bytes_model": size,
        "bytes_down_per_round": down * cohort,
        "bytes_up_per_round": up * (len(steps) or cohort),
        "data_mb": round(sample * len(learner.data["y"]) / MEGABYTE, 3),
        "memory_mb": round((sample * len(learner.data["y"]) + size * (6 + 5 * at_once)) / MEGABYTE, 3),
        "engine": setup.engine.name,
        "engine_note": setup.engine.reason,
        "first_node": flower.FIRST_NODE,
    }


def predict(setup: Setup) -> tuple[dict[str, object], Ray]:
    """Predict time and memory of a round by training one client, and choose the settings of Ray that are left open.

    Returns
    -------
    tuple
        The predicted numbers by name (docs/logs.md, event ``plan``), and Ray's settings with nothing left open.

    Raises
    ------
    ClientFailed
        Where the client that was tried cannot train.
    """
    config, plans = setup.config, first_round_plans(setup)
    learner = setup.learner
    measured = trial(setup, plans)
    device, model = learner.loss.device, tree.num_bytes(learner.loss.initial())
    loop = setup.engine.name == "loop"
    widest = max(len(plan.orders) for plan in plans)
    at_once = 1 if loop else min(config.chunk or widest, widest)
    copies = (
        3 + bool(config.local.momentum) + 2 * (config.local.optimizer != "sgd")
    )  # weights, gradient, update, moments
    per_client = max(copies * model + measured.activation_bytes, measured.device_bytes / at_once)
    base = (0.0 if device.type == "cuda" else PROCESS_BYTES) + 4 * model
    need, free = base + at_once * per_client, free_bytes(device) * MARGIN
    room = max(int((free - base) // per_client), 0)
    processes = max(int(free // need), 1)
    chosen = fill(config.ray, processes, len(plans), device)
    workers = chosen.num_workers if config.engine == "ray" else 1
    steps = sum(plan.steps if loop else plan.orders[0].steps for plan in plans)
    steps_tried = min(STEPS, plans[0].orders[0].steps)
    numbers = {
        "workers": workers,
        "gpu_fraction": chosen.num_gpus if config.engine == "ray" else float(device.type == "cuda"),
        "seconds_per_step": measured.seconds_per_step,
        "seconds_per_round": steps * measured.seconds_per_step / min(workers, len(plans)),
        "seconds_note": f"of training, from {steps_tried} steps tried; evaluation comes on top",
        "worker_mb": round(need / MEGABYTE, 1),
        "free_mb": round(free_bytes(device) / MEGABYTE, 1),
        "fits": need <= free,
        "largest_chunk": min(room, widest),
    }
    return numbers, chosen


def fill(ray: Ray, processes: int, blocks: int, device: torch.device) -> Ray:
    """Ray's settings with the number of workers and the GPU fraction chosen where they are 0.

    Parameters
    ----------
    ray : Ray
        The user's settings.
    processes : int
        Number of worker processes for which the free memory is large enough.
    blocks : int
        Blocks of a round: more workers than these would have no work.
    device : torch.device
        The kind of device that the workers train on.
    """
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
