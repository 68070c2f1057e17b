"""What a message for training carries of the global model: all of it, or its changes since the client's last round.

Where changes are sent (``codec.down``), clients of round t start from the reference model r_t
(``fl_sim.wire.reference``) instead of the global model w_t, and the server's step from r_t is applied to w_t:

    w_(t+1) = w_t + (step(r_t) - r_t) = step(r_t) + (w_t - r_t)

so that the strategy sees one round of r_t alone, and no change is lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.reference import Changes

KEPT = "#reference"
"""Name, in what a checkpoint keeps of a strategy, of what ``CodedModels`` keeps; no attribute can have it."""


class WholeModels:
    """Each message carries the whole model."""

    coded = False

    def begin(self, model: Tree, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """The model from which the clients of a round start; ``arrays``: ``model`` as a record."""
        return arrays

    def stepped(self, arrays: ArrayRecord) -> ArrayRecord:
        """The new global model, where a strategy has made ``arrays`` of the model that ``begin`` gave."""
        return arrays

    def num_bytes(self, client: int, whole: int) -> int:
        """Bytes of arrays in the round's message to a client, of ``whole`` with the whole model."""
        return whole

    def answered(self, asked: Iterable[int], lost: Iterable[int]) -> None:
        """The round's exchange has ended: of the clients ``asked``, those of ``lost`` have not completed the round."""

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint keeps beside the strategy's attributes."""
        return {}

    def restored(self, kept: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take over what ``state`` gave; returns the rest, which are the strategy's attributes."""
        return {k: v for k, v in kept.items() if k != KEPT}


class CodedModels(WholeModels):
    """A message carries the codes of the rounds since the client's last one, or the whole model where that is smaller.

    A client gets the whole model in its first round, and after a round that it did not complete: whether it has
    received that round's message is not known, so that bytes are never counted too low. Where a code is not smaller
    than the model (in round 1, too), the reference model becomes the global model itself.

    Parameters
    ----------
    changes : Changes
        The codec.
    names : Sequence of str
        The leaves that are coded: those that are trained and travel. The others are sent whole.
    clients : int
        How many clients there are, with ids from 0.
    keeps_codes : bool
        Whether ``codes`` are kept, to be sent to devices.
    """

    coded = True

    def __init__(self, changes: Changes, names: Sequence[str], clients: int, keeps_codes: bool = False) -> None:
        self.changes, self.names, self.keeps_codes = changes, tuple(names), keeps_codes
        self.round = 0
        """The round whose model ``reference`` is."""
        self.reference: Tree = {}
        self.versions = np.zeros(clients, np.int32)
        """The last round that each client completed; 0: it holds no model."""
        self.missed: dict[int, int] = {}
        """Round -> bytes of the codes after it, for rounds after which these are fewer bytes than the model."""
        self.codes: dict[int, Tree] = {}
        """Round -> its code, of the rounds after the first of ``missed``."""
        self._kept: Tree = {}
        self._behind: Tree = {}

    def begin(self, model: Tree, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        """The reference model, after the code of this round."""
        own = {k: model[k] for k in self.names}
        whole, size = tree.num_bytes(own), self.changes.num_bytes(own, server_round)
        self.round = server_round
        if not self.reference or size >= whole:
            self.reference, self.missed, self.codes = own, {server_round: 0}, {}
            self._kept, self._behind = {}, {}
            return arrays
        code, self.reference, self._kept = self.changes.coded(self.reference, own, self._kept, server_round)
        self._behind = tree.sub(own, self.reference)
        self.missed = {t: n + size for t, n in self.missed.items() if n + size < whole} | {server_round: 0}
        if self.keeps_codes:
            first = min(self.missed)
            self.codes = {t: x for t, x in (*self.codes.items(), (server_round, code)) if t > first}
        return records.encode({k: self.reference.get(k, x) for k, x in model.items()})

    def stepped(self, arrays: ArrayRecord) -> ArrayRecord:
        """The strategy's step from the reference model, taken from the global model."""
        if not self._behind:
            return arrays
        new = records.decode(arrays)
        own = {k: new[k] + x for k, x in self._behind.items() if k in new and new[k].shape == x.shape}
        return records.encode({**new, **own})

    def num_bytes(self, client: int, whole: int) -> int:
        """Bytes of the codes that the client lacks, and of all that is not coded."""
        since = self.since(client)
        return whole if since is None else whole - tree.num_bytes(self.reference) + self.missed[since]

    def since(self, client: int) -> int | None:
        """The round after whose model the client is sent codes; None: it is sent the whole model."""
        version = int(self.versions[client])
        return version if version in self.missed else None

    def answered(self, asked: Iterable[int], lost: Iterable[int]) -> None:
        """Those that completed the round hold its reference model."""
        self.versions[list(asked)] = self.round
        self.versions[list(lost)] = 0

    def state(self) -> Mapping[str, Any]:
        """The reference model, each client's version, and the codes that somebody may lack."""
        if not self.reference:
            return {}
        missed = torch.tensor([*self.missed.items()], dtype=torch.int64)
        codes = {str(t): code for t, code in self.codes.items()}
        versions = torch.from_numpy(self.versions.copy())
        own = {"round": self.round, "model": self.reference, "versions": versions, "missed": missed}
        return {KEPT: {**own, "codes": codes, "kept": self._kept}}

    def restored(self, kept: Mapping[str, Any]) -> Mapping[str, Any]:
        """Go on with what ``state`` gave; without it, no client holds a model."""
        if (own := kept.get(KEPT)) is not None:
            self.round, self.reference = int(own["round"]), {k: own["model"][k] for k in self.names}
            self.versions = own["versions"].numpy().copy()
            self.missed = dict(own["missed"].tolist())
            self.codes, self._kept = {int(t): code for t, code in own["codes"].items()}, own["kept"]
        return super().restored(kept)
