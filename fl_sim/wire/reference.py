"""The reference model: what clients hold of the global model where its changes are sent as codes (``codec.down``).

    r_t = r_(t-1) + decode(encode(w_t - r_(t-1)))

Server and clients compute it from the same codes, so that one model stands for all clients; what a code loses stays in
w_t - r_t, and is in the next one (Tang, Lian, Yu, Zhang, Liu 2019, "DoubleSqueeze", ICML, arXiv:1905.05957, codes in
both directions with such feedback; Gruntkowska, Tyurin, Richtarik 2023, "EF21-P and Friends", ICML, arXiv:2209.15218,
algorithm 1, whose reference model this is).

Legend: w the global model, r the reference model; both are the leaves that are coded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fl_sim import rng, tree
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Keys

RECORD = "change."
"""How the names of a message's records with codes begin; the round whose code it is follows."""


@dataclass(frozen=True)
class Changes:
    """How the changes of the reference model are coded, alike at the server and on devices."""

    codec: Codec
    rounds: int
    """The round at which schedules end."""
    seed: int

    def at(self, server_round: int) -> Codec:
        """The codec of a round."""
        return self.codec.at(server_round, self.rounds)

    def keys(self, server_round: int) -> Keys:
        """The keys of a round's draws; all receivers know the shared one."""
        own = rng.key(self.seed, "codec down own", server_round)
        return Keys(rng.key(self.seed, "codec down", server_round), own)

    def num_bytes(self, like: Tree, server_round: int) -> int:
        """Bytes of a round's code, which follow from the model's shapes."""
        return sum(form.num_bytes for form in self.at(server_round).form(like).values())

    def coded(self, reference: Tree, model: Tree, kept: Tree, server_round: int) -> tuple[Tree, Tree, Tree]:
        """(the code of ``model - reference``, the reference model after it, what the codec keeps)."""
        change = tree.sub(model, reference)
        code, kept = self.at(server_round).encode(change, kept, self.keys(server_round))
        return code, self._moved(reference, code, server_round), kept

    def moved(self, reference: Tree, code: Mapping[str, Tensor], server_round: int) -> Tree:
        """The reference model after a code that came from elsewhere. Raises ValueError where it is no such code."""
        if why := self.at(server_round).problem(code, reference):
            raise ValueError(f"the model's change of round {server_round} cannot be read: {why}")
        return self._moved(reference, dict(code), server_round)

    def _moved(self, reference: Tree, code: Tree, server_round: int) -> Tree:
        got = self.at(server_round).decode(code, reference, self.keys(server_round).shared)
        return {k: x + got[k].to(x) for k, x in reference.items()}
