"""dgc: the largest coordinates of what has gathered on the client, with its momentum corrected for the delay.

Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training",
ICLR 2018, arXiv:1712.01887, section 3 and algorithm 4. Once a round, of a rule that takes one gradient step a round:

    d = update, its norm clipped;   u <- m u + d;   v <- v + u;   S = the largest coordinates of v by magnitude
    code = (v_S, S);   v_S <- 0;   with ``masking`` also u_S <- 0

A client sends its momentum, so that the server's step is that of plain averaging. With a share of 1, all clients in
each round, constant weights and no clipping it is momentum on the server without masking (FedAvgM of Hsu, Qi, Brown
2019, no dampening, no Nesterov), and plain averaging with masking, which then forgets u in each round.

Two differences from the paper: S is chosen among all coordinates together, not in each layer, and clipping bounds the
update, which is the learning rate times the gradient.

Legend: N coordinates of all tensors together, k that are sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys
from strategies.codecs._flat import flat, size, unflat
from strategies.codecs.topk import TopK, largest, scattered

FIRST = 0.25
"""The share of the first round of a warm-up."""


@dataclass(frozen=True)
class DGC(Codec):
    """The largest coordinates of what has gathered; for rules of one gradient step a round."""

    keeps_error = True
    one_gradient = True

    share: Annotated[float, Gt(0), Le(1)] = 0.001
    """Share of the coordinates that is sent."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """m: momentum of each client's updates."""
    masking: bool = True
    """Whether a coordinate's momentum begins anew when it is sent."""
    clip: Annotated[float, Ge(0)] = 0.0
    """Largest norm of an update before it is gathered; 0: none."""
    warmup: Annotated[int, Ge(0)] = 0
    """Rounds in which the share falls from a quarter, in equal ratios; 4 in the paper."""

    @property
    def _sparse(self) -> TopK:
        """The form of a code."""
        return TopK(self.share)

    def form(self, like: Tree) -> Mapping[str, Form]:
        """Those of ``topk``: the values (k,) and the indices (bytes,)."""
        return self._sparse.form(like)

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """Gather, and send the largest of what has gathered."""
        sent, kept = self.transmit(update, state, keys)
        return self._sparse.encode(sent, {}, keys)[0], kept

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        """The sent coordinates; zero elsewhere."""
        return self._sparse.decode(code, like, shared)

    def content_problem(self, code: Tree, like: Tree) -> str:
        """Indices that are not ascending or out of range."""
        return self._sparse.content_problem(code, like)

    def at(self, server_round: int, rounds: int) -> "DGC":
        """The share of the warm-up: 1/4 (4 share)^((t - 1) / warmup) in round t."""
        if server_round > self.warmup or self.share >= FIRST:
            return self
        done = (server_round - 1) / self.warmup
        return replace(self, share=FIRST * (self.share / FIRST) ** done)

    def scaled(self, factor: float) -> "DGC":
        """One coordinate of ``factor`` is sent. Raises ValueError beside a warm-up."""
        if self.warmup:
            raise ValueError(f"codec.warmup = {self.warmup}: codec.schedule says which share is sent; leave one out")
        return replace(self, share=1 / factor)

    def transmit(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        """The same without a code."""
        change = flat(update)
        if self.clip and (norm := float(change.norm())) > self.clip:
            change = change * (self.clip / norm)
        last = {k: state[k] for k in ("u", "v") if k in state}  # a fork's clients may keep what another codec left
        if any(len(x) != size(update) for x in last.values()):
            raise ValueError(f"the client keeps {len(state['v'])} coordinates, and its update has {size(update)}")
        u = last["u"].to(change) * self.momentum + change if last else change
        v = last["v"].to(change) + u if last else u
        chosen = largest(v, self._sparse.count(update))
        sent = scattered(v[chosen], chosen, len(v))
        v = v.index_fill(0, chosen, 0.0)
        u = u.index_fill(0, chosen, 0.0) if self.masking else u
        return unflat(sent, update), {"u": u, "v": v}
