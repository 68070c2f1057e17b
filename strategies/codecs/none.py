"""No codec: replies are sent as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys


@dataclass(frozen=True)
class NoCodec(Codec):
    """The update itself, bit for bit; a run without a codec does not even make it."""

    biased = False
    sends_all = True

    def form(self, like: Tree) -> Mapping[str, Form]:
        """The tensors of the update."""
        return {k: Form(tuple(x.shape), x.dtype) for k, x in like.items()}

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """The update."""
        return update, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """The code."""
        return code
