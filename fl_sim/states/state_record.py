"""One client's state as the bytes of a record; to read it runs no code.

    header   32 bytes: MAGIC, bytes of the form, client, bytes of the record, CRC-32 of all that follows
    form     JSON: for each leaf [name, dtype, shape, strides or null, type of its device, its first byte]
    leaves   each begins at a multiple of ALIGN bytes from the record's start, and so does the next record

Numbers are little-endian. A state that is read has the bits, the dtypes, the order of leaves and the layout of memory
(channels-last, say) that it had.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fl_sim.tree import Tree

MAGIC = b"FLS1"
HEADER = struct.Struct("<4sIqQQ")
ALIGN = 64
"""Bytes; no dtype needs more."""
PADDING = memoryview(bytes(ALIGN))
DTYPES = {
    str(x).removeprefix("torch."): x for x in vars(torch).values() if isinstance(x, torch.dtype) and x.itemsize <= 16
}
"""The dtypes that a form may name."""


class Malformed(ValueError):
    """Bytes that are not the record that was written."""


class Leaf(NamedTuple):
    """A leaf of a record's form."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    """None: contiguous."""
    device: str
    start: int
    """Its first byte, counted from the end of the form."""


def encode(client: int, state: Mapping[str, Tensor]) -> tuple[list[Any], int, int]:
    """(the record of a client's state as buffers one after another, its bytes, its CRC-32).

    The leaves must be strided tensors; the buffers share their memory where they can.
    """
    rows, start = [], 0
    parts: list[Any] = []
    for name, x in state.items():
        flat, stride = _flat(x.detach().cpu())
        size = flat.numel() * flat.element_size()
        rows.append([name, str(x.dtype).removeprefix("torch."), x.shape, stride, "cuda" if x.is_cuda else "cpu", start])
        parts += [flat.view(torch.uint8).numpy(), PADDING[: -size % ALIGN]] if size else []
        start += size + -size % ALIGN
    form = json.dumps(rows, separators=(",", ":")).encode()
    form += b" " * (-(HEADER.size + len(form)) % ALIGN)
    crc = _crc(client, form)
    for part in parts:
        crc = zlib.crc32(part, crc)
    length = HEADER.size + len(form) + start
    return [HEADER.pack(MAGIC, len(form), client, length, crc), form, *parts], length, crc


def decode(client: int, record: memoryview, crc: int) -> Tree:
    """The state in a record, whose leaves on the CPU share its memory; it must be writable.

    Raises Malformed unless it is the record that ``encode`` made of this client's state, with this checksum.
    """
    leaves = leaves_of(client, record, crc)
    start = HEADER.size + HEADER.unpack_from(record)[1]
    try:
        return {leaf.name: _tensor(record, start, leaf) for leaf in leaves}
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise Malformed(f"its bytes do not have its form ({error})") from error


def leaves_of(client: int, record: memoryview, crc: int) -> "tuple[Leaf, ...]":
    """The form of a record. Raises Malformed unless all of its bytes are those of this client and checksum."""
    if len(record) < HEADER.size:
        raise Malformed("it is cut short")
    magic, length, whose, size, kept = HEADER.unpack_from(record)
    if magic != MAGIC or whose != client or size != len(record) or kept != crc or length > size - HEADER.size:
        raise Malformed("its header is another one")
    body = record[HEADER.size :]
    if _crc(client, body) != crc:
        raise Malformed("its checksum is another one")
    try:
        return _leaves(bytes(body[:length]))
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Malformed(f"its form is none ({type(error).__name__}: {error})") from error


def _crc(client: int, body: "bytes | memoryview") -> int:
    return zlib.crc32(body, client & 0xFFFFFFFF)


def _flat(x: Tensor) -> tuple[Tensor, list[int] | None]:
    """The elements in the order of memory, and the strides where the tensor is dense in another order than its own."""
    x = x.resolve_conj().resolve_neg() if x.is_complex() or x.is_neg() else x
    if not x.is_contiguous() and x.numel():
        ordered = x.permute(sorted(range(x.ndim), key=x.stride().__getitem__, reverse=True))
        if ordered.is_contiguous():
            return ordered.reshape(-1), list(x.stride())
    flat = x.reshape(-1).contiguous()
    return (flat if flat.stride() == (1,) else flat.clone(memory_format=torch.contiguous_format)), None


@lru_cache(maxsize=64)
def _leaves(form: bytes) -> tuple[Leaf, ...]:
    return tuple(_leaf(*row) for row in json.loads(form))


def _leaf(name: Any, dtype: Any, shape: Any, stride: Any, device: Any, start: Any) -> Leaf:
    leaf = Leaf(name, DTYPES[dtype], tuple(shape), None if stride is None else tuple(stride), device, start)
    numbers = (*leaf.shape, *(leaf.stride or ()), leaf.start)
    if not isinstance(name, str) or not all(type(n) is int and n >= 0 for n in numbers) or device not in DEVICES:
        raise ValueError(f"its leaf {name!r} has a form that no state has")
    return leaf


DEVICES = ("cpu", "cuda")
"""The types of devices that a form may name."""


def _tensor(record: memoryview, start: int, leaf: Leaf) -> Tensor:
    count = 1
    for n in leaf.shape:
        count *= n
    if not count:
        return placed(torch.empty(leaf.shape, dtype=leaf.dtype), leaf.device)
    x = torch.frombuffer(record, dtype=leaf.dtype, count=count, offset=start + leaf.start)
    x = x.view(leaf.shape) if leaf.stride is None else x.as_strided(leaf.shape, leaf.stride)
    return placed(x, leaf.device)


def placed(x: Tensor, device: str) -> Tensor:
    """A tensor on the type of device on which it was; on the CPU where this machine has no such device."""
    return x.to(device) if device == "cuda" and torch.cuda.is_available() else x
