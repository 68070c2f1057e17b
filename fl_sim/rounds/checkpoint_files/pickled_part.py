"""What of a checkpoint only pickle can hold, and the rule by which it is read: to unpickle is to run code.

It is read where its HMAC fits the key of this user (``fl_sim.logs.own_key``), or where the user trusts its writer.
"""

import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fl_sim.logs import own_key

PURPOSE = "fl-sim checkpoint"
"""What the HMAC is for."""


class _Pickler(pickle.Pickler):
    """Refers to objects that the checkpoint's JSON holds already, so that a restored strategy shares them as before."""

    def __init__(self, file: io.BytesIO, objects: Mapping[int, int]) -> None:
        super().__init__(file, protocol=5)
        self.objects = objects

    def persistent_id(self, obj: Any) -> int | None:
        """The number of an object of the JSON; None for others."""
        return self.objects.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, objects: Sequence[object]) -> None:
        super().__init__(file)
        self.objects = objects

    def persistent_load(self, pid: Any) -> object:
        """An object of the JSON by its number."""
        return self.objects[pid]


def write(attributes: Mapping[str, object], objects: Mapping[int, int]) -> bytes:
    """The attributes as a pickle. Raises what pickle raises (PicklingError, TypeError, AttributeError)."""
    file = io.BytesIO()
    _Pickler(file, objects).dump(dict(attributes))
    return file.getvalue()


def sign(data: bytes, beside: str) -> str:
    """The HMAC of a pickle and of the text beside it, whose objects it refers to.

    Empty, with a warning, where this user's key can be neither read nor made.
    """
    signature = own_key.sign(PURPOSE, _signed(data, beside))
    if not signature:
        later = "the checkpoints of this run are not signed, and --resume and --fork will need --trust_pickle"
        warnings.warn(
            f"FL_SIM_HOME: the key {own_key.key_file()} can be neither used nor made; {later}; make its folder "
            "writable, or the key readable for its owner only",
            stacklevel=2,
        )
    return signature


def why_not(data: bytes, beside: str, signature: str) -> str:
    """Why a pickle must not be read without the user's trust; empty where this user's key signed it."""
    try:
        if own_key.fits(PURPOSE, _signed(data, beside), signature):
            return ""
    except ValueError as error:
        return str(error)
    return f"{own_key.key_file()} did not sign it" if signature else "nobody signed it"


def read(data: bytes, objects: Sequence[object]) -> dict[str, object]:
    """The attributes of a pickle that may be read: this runs the code that it names."""
    found: dict[str, object] = _Unpickler(io.BytesIO(data), objects).load()
    return found


def _signed(data: bytes, beside: str) -> bytes:
    return len(data).to_bytes(8, "little") + data + beside.encode()
