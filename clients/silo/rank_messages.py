"""Messages between a silo's parent and its ranks: arrays are sent from where they are, and read to where they stay.

A message is a head, which says how many bytes each array has, and then the arrays' bytes.
"""

import os
import pickle
from multiprocessing.connection import Connection
from typing import Any

import torch

from clients.silo.rank_work import packed, unpacked


def post(connection: Connection, value: object) -> None:
    """Send an object. Raises OSError where the other side has ended."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = b"p" + pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, AttributeError, TypeError):  # what only goes by value, as of ``packed``
        buffers, head = [], packed(value)
    parts = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps(([len(part) for part in parts], head)))
    for part in parts:
        while len(part):
            part = part[os.write(connection.fileno(), part) :]


def receive(connection: Connection) -> Any:
    """The object that the other side posted. Raises EOFError or OSError where that has ended."""
    sizes, head = pickle.loads(connection.recv_bytes())
    parts = [torch.empty(size, dtype=torch.uint8).numpy() for size in sizes]  # aligned as torch's own tensors are
    for part in parts:
        left = part.data
        while len(left):
            count = os.readv(connection.fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
    return pickle.loads(memoryview(head)[1:], buffers=parts) if parts else unpacked(head)
