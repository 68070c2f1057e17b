"""A strategy for tests of real deployments whose devices tamper with the replies that they send."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, Message

import clients.device.answer as device
from fl_sim import Local, Loss
from fl_sim.learning.loss import Batch
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


class Tampering(Strategy):
    """No paper. The environment variable ``TAMPER`` of a device says what it does with its reply; without, nothing."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> Any:
        how, honest = os.environ.get("TAMPER", ""), device.reply_to

        def tampered(*args: Any) -> Message:
            reply = honest(*args)
            content, [name, *_] = reply.content, reply.content["arrays"]
            shape = tuple(content["arrays"][name].shape)
            if how == "weight":
                content["facts"]["weight"], content["metrics"]["num-examples"] = 1e18, 10**18
            elif how == "header":  # 4 TB
                descr = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40},), }}\n".encode()
                data = b"\x93NUMPY\x01\x00" + len(descr).to_bytes(2, "little") + descr
                content["arrays"][name] = Array("float32", (2**40,), "numpy.ndarray", data)
            elif how == "objects":
                header = np.lib.format.magic(1, 0), f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}\n"
                data = header[0] + len(header[1]).to_bytes(2, "little") + header[1].encode() + b"\x80\x04."
                content["arrays"][name] = Array("object", shape, "numpy.ndarray", data)
            elif how == "half":  # objects that are not those that were announced: the SuperLink waits for the others
                Array.deflate = lambda own: b"Array||1\x00{"  # type: ignore[method-assign]
            return reply

        device.reply_to = tampered  # type: ignore[assignment]
        return super().local_update(model, state, batches, loss, local_)
