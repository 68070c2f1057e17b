"""Messages between a silo's parent and its ranks arrive as they were sent; half of one is an error."""

import socket
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch

from clients.silo.rank_messages import post, receive


def sides() -> tuple[Connection, Connection]:
    one, other = socket.socketpair()
    return Connection(one.detach()), Connection(other.detach())


def received(value: object) -> Any:
    """The object on the other side."""
    ours, theirs = sides()
    sender = threading.Thread(target=post, args=(ours, value), daemon=True)
    sender.start()
    try:
        return receive(theirs)
    finally:
        sender.join(20)
        ours.close()
        theirs.close()


def test_arrays_of_every_shape_arrive_in_aligned_memory_of_their_own() -> None:
    large = np.arange(300_000, dtype=np.float64).reshape(3, -1)  # more than a socket holds at once
    sent = {"large": large, "turned": large.T, "apart": large[:, ::7], "none": large[:0], "one": np.float32(3) * 1}
    found = received(("done", sent))[1]
    for name, x in sent.items():
        assert found[name].dtype == x.dtype and np.array_equal(found[name], x)
    found["large"][0] = 0  # a rule may write into what it receives
    assert found["large"].ctypes.data % 64 == 0 and large[0, 1] == 1
    half = torch.randn(5).bfloat16()
    assert torch.equal(received({"x": half})["x"], half) and received(None) is None


def test_what_pickle_cannot_name_goes_with_its_arrays() -> None:
    def own(x: int) -> int:
        return x + 1

    function, x = received((own, np.ones(3)))
    assert function(1) == 2 and x.tolist() == [1, 1, 1]


def test_a_message_that_breaks_off_is_an_error() -> None:
    ours, theirs = sides()
    post(ours, np.ones(100))
    head = theirs.recv_bytes()
    again, rest = sides()
    again.send_bytes(head)
    again.close()
    with pytest.raises(EOFError):
        receive(rest)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        post(ours, np.ones(100))
