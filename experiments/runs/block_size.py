"""How many clients a block holds where the config does not say."""

import math

from fl_sim.learning.loss import Loss

BLOCK, BATCH = 16, 64
"""Clients a block at most, where the config leaves it open: on the loop, and on vmap if their weights take no more than ROOM."""


ROOM = {"cpu": 64 * 2**20, "gpu": 2 * 2**30}
"""Bytes of a block's weights, under which vmap gains from more clients in it."""


def block_size(engine: str, cohort: int, loss: Loss) -> int:
    """Clients a block where the config does not say: a fixed rule, the same for any number of workers.

    The loop cuts a round into sixteen blocks or more, for any few workers to share. vmap gains from each client of a block
    (logistic regression in blocks of 64 takes .53 of the time of blocks of 16, the 2NN .70): up to BATCH, on a CPU in four blocks
    or more unless they had fewer than BLOCK clients; a GPU is filled by one process with large blocks.
    """
    if engine != "vmap":
        return min(BLOCK, math.ceil(cohort / BLOCK))
    gpu = loss.device.type != "cpu"
    weights = sum(v.numel() * v.element_size() for v in loss.initial().values())
    most = BATCH if gpu else min(BATCH, math.ceil(cohort / 4))
    return max(BLOCK, min(most, ROOM["gpu" if gpu else "cpu"] // max(weights, 1)))
