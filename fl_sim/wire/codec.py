"""A codec: an update in fewer bytes, coded on the client and decoded client by client before replies are pooled.

Where clients reply with models, the update is the reply minus the model that was received; else the reply itself. Coded
are the trained leaves that travel; running statistics and whole numbers are sent as they are. A code is a tree of
tensors in one record of the reply, ``code``, whose size depends on the shapes of the update alone: virtual time knows
how long an upload takes before anybody trains.

Error feedback: what a code lost is kept by its client and added to its next update (Seide et al. 2014, "1-bit SGD",
Interspeech; Karimireddy, Rebjock, Stich, Jaggi 2019, "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML, arXiv:1901.09847, algorithm 1).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire.payload import BETWEEN

RECORD = "code"
"""Name of the record of a reply that holds a code."""
IN_STATE = "codec::"
"""How the names of what a codec keeps begin in a client's state."""
ERROR = "error"
"""Name of the tree, in what a codec keeps, that holds what codes have lost so far."""


class Form(NamedTuple):
    """The form of one tensor of a code."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


class Keys(NamedTuple):
    """Keys of random draws: see ``fl_sim.rng``."""

    shared: int
    """The round's, alike on clients and server: what it draws needs no bytes."""
    own: int
    """The client's own in this round."""


class Codec(ABC):
    """Codes one client's update. A subclass is a frozen dataclass of plain numbers: they travel in each message.

    ``encode`` and ``decode`` are pure functions of their arguments, for trees of floating-point tensors of any shapes,
    and do not write into them. Bits depend on the shapes and on the dtype of ``update``, not on its device.
    """

    kind = "codec"
    biased: ClassVar[bool] = True
    """Whether the mean of codes over its draws is not the update: error feedback is then on where nothing is said."""
    sends_all: ClassVar[bool] = False
    """Whether each coordinate is sent with a value of its own; else the codec suits pools that are means alone."""
    keeps_error: ClassVar[bool] = False
    """Whether the codec accumulates by itself what it has not sent, so that ``feedback`` means nothing to it."""
    one_gradient: ClassVar[bool] = False
    """Whether it suits only clients that take one gradient step a round, and a server that adds up their mean."""

    @abstractmethod
    def form(self, like: Tree) -> Mapping[str, Form]:
        """The tensors of a code of an update with the names, shapes and dtypes of ``like``: a closed form."""

    @abstractmethod
    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """(the code, what the codec keeps for the client's next round; {}: nothing).

        ``state`` is what it kept last; {} in the client's first round.
        """

    @abstractmethod
    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """The update that the server reads, with names, shapes and dtypes of ``like``; ``shared``: see ``Keys``."""

    def content_problem(self, code: Tree, like: Tree) -> str:
        """Why a code of the right form must not be decoded, such as an index out of range; "" where it may be."""
        return ""

    def at(self, server_round: int, rounds: int) -> "Codec":
        """The codec of one round, of ``rounds`` until schedules end. Default: the same in all."""
        return self

    def scaled(self, factor: float) -> "Codec":
        """The codec that sends one number for ``factor`` coordinates, for ``codec.schedule``.

        Raises ValueError where it has no such factor.
        """
        raise ValueError(f"{type(self).__name__} has no factor that a schedule could change")

    def transmit(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """(the update as the server reads it, what the codec keeps): ``decode`` of ``encode``, without the code.

        A subclass may compute the same bits faster.
        """
        code, kept = self.encode(update, state, keys)
        return self.decode(code, update, keys.shared), kept

    def problem(self, code: Mapping[str, Tensor], like: Tree) -> str:
        """Why a code that a device sent must not be decoded; "" where it may be."""
        form = self.form(like)
        if set(code) != set(form):
            return f"a code with {_short(sorted(code))}; it must have {_short(sorted(form))}"
        for k, (shape, dtype) in form.items():
            x = code[k]
            if (tuple(x.shape), x.dtype) != (shape, dtype):
                return f"code: {k} is {tuple(x.shape)} {x.dtype}, must be {shape} {dtype}"
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                return f"code: NaN or infinity in {k}"
        return self.content_problem(dict(code), like)


class Sent(NamedTuple):
    """What one client sends of its reply."""

    code: Tree
    """The tensors of the record; {} where only their effect was computed."""
    reply: Tree
    """The coded leaves as the server reads them."""
    state: Tree
    """What is kept in the client's state."""


@dataclass(frozen=True)
class Coding:
    """How the clients of a message code their replies."""

    codec: Codec
    feedback: bool
    trees: Sequence[str] = ()
    """Names of the payload's trees that are coded too, each by itself; the others are sent whole."""

    def parts(self, names: Sequence[str], form: Tree) -> dict[str, Tree]:
        """The coded leaves of a reply by part: "" for those of the model among ``names``, and each coded tree.

        ``form``: a reply's form, see ``fl_sim.learning.returned.reply_form``.
        """
        floats = {k: x for k, x in form.items() if x.is_floating_point()}
        parts = {"": {k: floats[k] for k in names if k in floats}}
        for name in self.trees:
            parts[name] = {k: x for k, x in floats.items() if k.startswith(name + BETWEEN)}
        return {name: part for name, part in parts.items() if part}

    def num_bytes(self, names: Sequence[str], form: Tree) -> int:
        """Bytes of a reply of this form: of its code, and of the leaves that are sent as they are."""
        parts = self.parts(names, form)
        whole = tree.num_bytes({k: x for k, x in form.items() if not any(k in part for part in parts.values())})
        return whole + sum(f.num_bytes for part in parts.values() for f in self.codec.form(part).values())

    def send(self, updates: Mapping[str, Tree], state: Mapping[str, Tensor], keys: Keys, with_code: bool) -> Sent:
        """Code the parts of one client's update; ``state`` is what was kept of its last one.

        Raises ValueError where that is of another codec.
        """
        code: Tree = {}
        read: Tree = {}
        kept: Tree = {}
        for name, update in updates.items():
            own = {k.removeprefix(f"{name}|"): x for k, x in state.items() if k.startswith(f"{name}|")}
            error = {k.removeprefix(ERROR + BETWEEN): own.pop(k) for k in [*own] if k.startswith(ERROR + BETWEEN)}
            if unknown := set(error) - set(update):
                raise ValueError(f"the client keeps an error of {_short(sorted(unknown))}: of another model")
            total = {k: x + error[k].to(x) if k in error else x for k, x in update.items()} if self.feedback else update
            if with_code:
                part, new = self.codec.encode(total, own, keys)
                code |= {f"{name}|{k}": x for k, x in part.items()}
                got = self.codec.decode(part, total, keys.shared)
            else:
                got, new = self.codec.transmit(total, own, keys)
            if self.feedback:
                new = {**new, **{f"{ERROR}{BETWEEN}{k}": x - got[k] for k, x in total.items()}}
            kept |= {f"{name}|{k}": x for k, x in new.items()}
            read |= got
        return Sent(code, read, kept)

    def read(self, code: Mapping[str, Tensor], parts: Mapping[str, Tree], shared: int) -> tuple[Tree, str]:
        """(the updates in a code that a device sent, why it must not be used or "")."""
        read: Tree = {}
        known = 0
        for name, like in parts.items():
            part = {k.removeprefix(f"{name}|"): x for k, x in code.items() if k.startswith(f"{name}|")}
            known += len(part)
            if why := self.codec.problem(part, like):
                return {}, why
            read |= self.codec.decode(part, like, shared)
        return (read, "") if known == len(code) else ({}, f"a code of {len(code)} tensors, of which {known} are known")


def factor_at(schedule: str, server_round: int, rounds: int) -> float:
    """The factor of a round by a schedule "16..1": from the first to the last round in equal ratios.

    Raises ValueError for another text.
    """
    first, _, last = schedule.partition("..")
    try:
        ends = float(first), float(last)
    except ValueError:
        ends = (0.0, 0.0)
    if not all(1 <= x < math.inf for x in ends):
        raise ValueError(f"codec.schedule = {schedule!r}: must be two factors of at least 1, such as 16..1")
    done = min(max(server_round - 1, 0) / max(rounds - 1, 1), 1.0)
    return float(ends[0] * (ends[1] / ends[0]) ** done)


def no_coding(settings: Mapping[str, object]) -> Coding | None:
    """Replies are sent as they are."""
    return None


def split_state(state: Mapping[str, Tensor]) -> tuple[Tree, Tree]:
    """(a client's state without what a codec keeps, and that by the codec's names)."""
    if not any(k.startswith(IN_STATE) for k in state):
        return dict(state), {}
    own = {k: x for k, x in state.items() if not k.startswith(IN_STATE)}
    return own, {k.removeprefix(IN_STATE): x for k, x in state.items() if k.startswith(IN_STATE)}


def with_kept(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Tree:
    """A client's state with what a codec keeps."""
    return {**state, **{IN_STATE + k: x for k, x in kept.items()}}


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"
