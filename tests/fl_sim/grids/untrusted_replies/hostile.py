"""What a hostile device may send in place of a good reply, by a name, with the reason by which it must be refused."""

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

Tamper = Callable[[RecordDict], None]
F32 = np.float32
EXAMPLES = 10
"""How many samples each device says that it has."""


def honest(start: RecordDict) -> RecordDict:
    """A good reply: the model that came plus 1, ten examples, two steps."""
    arrays = {k: Array(x.numpy() + x.numpy().dtype.type(1)) for k, x in start["arrays"].items()}
    size = sum(x.numpy().nbytes for x in arrays.values())
    facts = ConfigRecord({"num-bytes": size, "weight": float(EXAMPLES), "block": 0})
    metrics = MetricRecord({"num-examples": EXAMPLES, "steps": 2, "loss": 0.5})
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics, "facts": facts})


def leaves(**changed: np.ndarray | Array | None) -> Tamper:
    """Replace leaves of the model; None takes one away."""

    def tamper(content: RecordDict) -> None:
        for name, x in changed.items():
            if x is None:
                del content["arrays"][name]
            else:
                content["arrays"][name] = x if isinstance(x, Array) else Array(x)

    return tamper


def records(**changed: Any) -> Tamper:
    """Replace records; None takes one away."""

    def tamper(content: RecordDict) -> None:
        for name, record in changed.items():
            if record is None:
                del content[name]
            else:
                content[name] = record

    return tamper


def entries(name: str, **changed: Any) -> Tamper:
    """Replace entries of a record, of which some have ``_`` for ``-`` in their names; None takes one away."""

    def tamper(content: RecordDict) -> None:
        for key, value in changed.items():
            key = key.replace("_", "-") if key in ("num_examples", "num_bytes", "state_round") else key
            if value is None:
                del content[name][key]
            else:
                content[name][key] = value

    return tamper


def array(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (2, 3), stype: str = "numpy.ndarray") -> Array:
    return Array(dtype, shape, stype, data)


def saved(x: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, x, **options)
    return file.getvalue()


def headed(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """NumPy's file format with any text as its header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


def described(shape: str, dtype: str = "<f4") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


class Bomb:
    """Raises where it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", b"")
    return file.getvalue()


W, GOOD = np.ones((2, 3), F32), saved(np.ones((2, 3), F32))
OBJECTS = saved(np.array([Bomb()], dtype=object), allow_pickle=True)

ARRAYS: dict[str, tuple[Tamper, str]] = {
    "an empty record": (records(arrays=ArrayRecord()), "without a model|wrong keys: missing"),
    "no record of arrays": (records(arrays=None), "without a model|0 records of arrays"),
    "two records of arrays": (records(more=ArrayRecord({"w": Array(W)})), "2 records of arrays"),
    "a leaf is missing": (leaves(w=None), r"wrong keys: missing \['w'\]"),
    "a leaf too many": (leaves(x=W), r"wrong keys: .*unknown \['x'\]"),
    "another name": (leaves(w=None, W=W), r"wrong keys: missing \['w'\], unknown \['W'\]"),
    "another shape": (leaves(w=np.ones((2, 4), F32)), r"wrong shape: w is \(2, 4\), must be \(2, 3\)"),
    "a shape that broadcasts": (leaves(w=np.ones((1, 3), F32)), "wrong shape: w"),
    "a transposed leaf": (leaves(w=W.T.copy()), "wrong shape: w"),
    "float64": (leaves(w=W.astype(np.float64)), "wrong dtype: w is float64, must be float32"),
    "big endian": (leaves(w=W.astype(">f4")), "wrong dtype: w is >f4"),
    "integers": (leaves(w=W.astype(np.int32)), "wrong dtype: w is int32"),
    "truth values": (leaves(w=W.astype(bool)), "wrong dtype: w is bool"),
    "complex numbers": (leaves(w=W.astype(np.complex64)), "wrong dtype: w is complex64"),
    "words": (leaves(w=np.full((2, 3), "abc")), "wrong dtype: w is <U3"),
    "a table": (leaves(w=np.zeros((2, 3), [("a", "f4")])), "wrong dtype: w is"),
    "NaN": (leaves(w=W * F32(np.nan)), "NaN or infinity in w"),
    "infinity": (leaves(w=W * F32(np.inf)), "NaN or infinity in w"),
    "minus infinity": (leaves(w=W * F32(-np.inf)), "NaN or infinity in w"),
    "near the limit of float32": (leaves(w=W * F32(3e38)), "values up to 3e.38 in w, too large"),
    "squares beyond float32": (leaves(w=W * F32(1e19)), "values up to 1e.19 in w, too large"),
    "a counter near the limit": (leaves(n=np.full(2, 2**63 - 1)), "values up to 9223372036854775807 in n"),
    "a counter of -2^63": (leaves(n=np.full(2, -(2**63))), "values up to 9223372036854775808 in n"),
    "a header of 4 TB": (
        leaves(w=array(headed(described("(2**40,)".replace("2**40", str(2**40)))))),
        "4398046511104 b",
    ),
    "a size that overflows": (leaves(w=array(headed(described(f"({2**62}, {2**62})")))), "declares float32"),
    "a negative size": (leaves(w=array(headed(described("(-2, -3)"), bytes(24)))), "negative size"),
    "bytes are missing": (leaves(w=array(GOOD[:-4])), "w declares float32 .2, 3., 24 bytes; 20 are there"),
    "bytes too many": (leaves(w=array(GOOD + bytes(8))), "24 bytes; 32 are there"),
    "no bytes": (leaves(w=array(b"")), "w is no NumPy array"),
    "a shape that is not so": (leaves(w=array(GOOD, shape=(6,))), r"w is said to be float32 \(6,\)"),
    "a dtype that is not so": (leaves(w=array(GOOD, dtype="float64")), "w is said to be float64"),
    "a dtype that is none": (leaves(w=array(GOOD, dtype="Tensor")), "w is said to be Tensor"),
    "objects": (leaves(w=array(OBJECTS, "object", (1,))), "w is an array of Python objects .a pickle., which is never"),
    "a pickle": (leaves(w=array(pickle.dumps(Bomb()))), "w is a pickle, which is never read"),
    "a zip archive": (leaves(w=array(zipped())), "w is a zip archive, which is never read"),
    "another serialisation": (
        leaves(w=array(GOOD, stype="cloudpickle")),
        "serialised as 'cloudpickle', which is never",
    ),
    "a header of brackets": (leaves(w=array(headed("(" * 9000))), "w has a header that cannot be read"),
    "a header that is no table": (leaves(w=array(headed("[1, 2]"))), "w has a header that cannot be read"),
    "a format of the future": (leaves(w=array(headed(described("(2, 3)"), version=b"\x09\x00"))), "cannot be read"),
    "a header without end": (leaves(w=array(b"\x93NUMPY\x01\x00\xff\xff{")), "w has a header that cannot be read"),
}
"""What is wrong with arrays, in any exchange whose replies are combined."""

NUMBERS: dict[str, tuple[Tamper, str]] = {
    "a weight of text": (entries("facts", weight="much"), "weight = 'much'"),
    "a weight of bytes": (entries("facts", weight=pickle.dumps(Bomb())), "weight = b."),
    "a list of weights": (entries("facts", weight=[1.0, 2.0]), r"weight = \[1.0, 2.0\]"),
    "a weight of NaN": (entries("facts", weight=float("nan")), "weight = nan"),
    "a negative weight": (entries("facts", weight=-1.0), "weight = -1.0: a weight must be a finite number"),
    "a weight of 1e18": (entries("facts", weight=1e18), "weight = 1e.18: at most 10, as the device said"),
    "a weight above its samples": (entries("facts", weight=11.0), "weight = 11.0: at most 10"),
    "no weight": (entries("facts", weight=None), "without its weight"),
    "no facts": (records(facts=None), "without its weight"),
    "facts that are metrics": (records(facts=MetricRecord({"weight": 1.0})), "1 records of arrays and 2 of metrics"),
    "facts that are arrays": (records(facts=ArrayRecord()), "2 records of arrays"),
    "a size in words": (entries("facts", num_bytes="many"), "num-bytes = 'many': must be a whole number"),
    "a size of 4 EB": (entries("facts", num_bytes=2**62), "num-bytes = 4611686018427387904: must be"),
    "a state of text": (entries("facts", state_round="last"), "state-round = 'last': the message was of round 1"),
    "a state of the future": (entries("facts", state_round=7), "state-round = 7: the message was of round 1"),
    "no metrics": (records(metrics=None), "1 records of arrays and 0 of metrics"),
    "two records of metrics": (records(more=MetricRecord({"a": 1.0})), "and 2 of metrics"),
    "no number of examples": (entries("metrics", num_examples=None), "num-examples = None: must be a whole number"),
    "a list of examples": (entries("metrics", num_examples=[1, 2]), "num-examples is a list of 2 numbers"),
    "NaN examples": (entries("metrics", num_examples=float("nan")), "num-examples is nan"),
    "infinite examples": (entries("metrics", num_examples=float("inf")), "num-examples is inf"),
    "-5 examples": (entries("metrics", num_examples=-5), "num-examples = -5: must be a whole number in 0..10+$"),
    "half an example": (entries("metrics", num_examples=2.5), "num-examples = 2.5: must be a whole number"),
    "1e18 examples": (entries("metrics", num_examples=10**18), "num-examples = 10+: must be a whole number in 0..10+$"),
    "examples that it has not": (entries("metrics", num_examples=11), "num-examples = 11: the device said .* 10 when"),
    "a list of steps": (entries("metrics", steps=[1, 2]), "steps is a list of 2 numbers"),
    "NaN steps": (entries("metrics", steps=float("nan")), "steps = nan: must be a whole number"),
    "-1 steps": (entries("metrics", steps=-1), "steps = -1: must be a whole number"),
    "2^62 steps": (entries("metrics", steps=2**62), "steps = 4611686018427387904: must be"),
    "no steps": (entries("metrics", steps=None), "steps = None: must be"),
    "a list of losses": (entries("metrics", loss=[0.5, 0.5]), "loss is a list of 2 numbers"),
    "a metric with a long name": (entries("metrics", **{"x" * 300: 1.0}), "a name of more than 200 characters"),
    "ten thousand metrics": (entries("metrics", **{f"m{n}": 1 for n in range(10_001)}), "10004 metrics"),
    "an unknown record": (records(extra=ConfigRecord({"a": 1})), r"unknown records \['extra'\]"),
    "a pool of its own": (records(arrays=None, pool=ArrayRecord({"w": Array(W)})), r"pool"),
    "a matrix of 10^12 rows": (
        records(set_metrics=ConfigRecord({"m": [1.0], "m.shape": [10**12, 1]})),
        "set_metrics: m has 1 numbers, and the sizes",
    ),
    "a matrix with one size": (records(set_metrics=ConfigRecord({"m": [1.0], "m.shape": [1]})), "set_metrics: m has 1"),
    "a matrix of sizes 0.5": (records(set_metrics=ConfigRecord({"m": [1.0], "m.shape": [0.5, 2.0]})), "set_metrics: m"),
    "a set metric of text": (records(set_metrics=ConfigRecord({"m": "high"})), "set_metrics: m is neither"),
    "a set metric of bytes": (records(set_metrics=ConfigRecord({"m": [b"\x80"]})), "set_metrics: m is neither"),
}
"""What is wrong with the numbers and facts of a device's reply."""

INTRODUCTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an id of text": ({"partition-id": "two"}, "partition-id = 'two': must be a whole number in 0..3"),
    "a list of ids": ({"partition-id": [2, 3]}, "partition-id = "),
    "an id of NaN": ({"partition-id": float("nan")}, "partition-id = nan"),
    "an id that there is not": ({"partition-id": 4}, "partition-id = 4: must be a whole number in 0..3"),
    "a negative id": ({"partition-id": -1}, "partition-id = -1"),
    "another's id": ({"partition-id": 0}, "it says that it is client 0"),
    "no id": ({"partition-id": None}, "partition-id = None"),
    "1e18 samples": ({"examples": 10**18}, "examples = 10+: must be a whole number in 0..10+$"),
    "samples of text": ({"examples": "many"}, "examples = 'many'"),
    "no samples": ({"examples": None}, "it does not say its examples"),
    "held-out samples of NaN": ({"held-out": float("nan")}, "held-out = nan"),
}
"""What is wrong with a device's answer to the query who it is."""
