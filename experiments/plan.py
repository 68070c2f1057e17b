"""What a run would do, in a few numbers, without doing it: ``--dry-run``. No paper."""

from typing import Any

import numpy as np

from experiments.build import Setup
from fl_sim import flower, tree
from fl_sim.block import plan_blocks
from fl_sim.partition import median

MEGABYTE = 1e6


def describe(setup: Setup) -> dict[str, Any]:
    """Clients, samples a client, local steps, bytes, memory, engine: facts of the config, and of round 1 where a draw decides."""
    config, partition, learner = setup.config, setup.partition, setup.grid.learner
    assert learner is not None
    registered = len(partition) - config.holdout_clients
    kinds, every = partition.size_counts(registered), partition.size_counts()
    cohort = config.cohort or registered
    settings = {**setup.train_config, **getattr(setup.strategy, "_settings", lambda r, c: {})(1, setup.train_config), "server-round": 1}
    plans = plan_blocks(learner, "train", [(i, i, settings) for i in range(min(cohort, registered))], {}, config.block_size)
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
