"""Processes of ``torch.distributed`` for a measurement: forked, on the loopback interface, ended with this one."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

LIMIT_S = 600.0
"""Seconds that a measurement may take."""


def on_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """``work(*arguments)`` on each of ``count`` ranks of one thread, in a gloo group; returns what rank 0 returns.

    Raises RuntimeError where a rank raises or takes longer than LIMIT_S.
    """
    context: Any = multiprocessing.get_context("fork")
    answers, ports = context.Queue(), context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, count, answers, ports, work, arguments), daemon=True)
        for rank in range(count)
    ]
    for rank in ranks:
        rank.start()
    try:
        found: dict[int, Any] = {}
        while len(found) < count:
            number, value, error = answers.get(timeout=LIMIT_S)
            if error:
                raise RuntimeError(f"rank {number}: {error}")
            found[number] = value
        return found[0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def _rank(
    rank: int, count: int, answers: Any, ports: Any, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    value, error = None, ""
    try:
        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.path.isdir("/sys/class/net/lo") else "lo0")
        limit, store_class = timedelta(seconds=LIMIT_S), vars(dist)["TCPStore"]
        if rank == 0:
            store = store_class("127.0.0.1", 0, count, True, limit, wait_for_workers=False)
            for _ in range(count - 1):
                ports.put(store.port)
        else:
            store = store_class("127.0.0.1", ports.get(timeout=LIMIT_S), count, False, limit)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=limit)
        value = work(*arguments)
        dist.barrier()
    except BaseException:
        error = traceback.format_exc()
    answers.put((rank, value, error))
