"""``python -m clients.silo.rank_process``: a rank of a silo as a new process, where its parent cannot fork one."""

import mmap
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import torch

from clients.silo.rank import live_with, serve
from clients.silo.rank_work import packed, unpacked
from clients.silo.silo_options import Silo
from clients.silo.sum_memory import SumMemory
from fl_sim.executors.ray.worker import ComputeSettings
from fl_sim.learning.loss import Loss


def first_message(loss: Loss, silo: Silo, memory: SumMemory | None) -> bytes:
    """What a new process is told first: its loss, the silo, its memory, and what may change bits in this process."""
    return packed((ComputeSettings(torch.get_num_threads()), packed((loss, silo, memory))))


def main(words: Sequence[str]) -> None:
    """Serve until the parent ends. ``words``: handles of connection and memory, rank, parent, and whether in its main
    thread.
    """
    handle, memory, rank, parent, at_once = map(int, words)
    live_with(parent, bool(at_once))
    connection = Connection(handle)
    settings, rest = unpacked(connection.recv_bytes())
    settings.apply()
    loss, silo, sums = unpacked(rest)
    beats = np.frombuffer(mmap.mmap(memory, 16 * silo.processes), np.int64).reshape(silo.processes, 2)
    serve(rank, connection, loss, silo, beats[rank], sums)


if __name__ == "__main__":
    main(sys.argv[1:])
