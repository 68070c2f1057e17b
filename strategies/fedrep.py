"""FedRep: clients share the body of the network, and each has a head of its own, which it trains first.

Collins, Hassani, Mokhtari, Shakkottai, "Exploiting Shared Representations for Personalized Federated Learning", ICML
2021, arXiv:2102.07078, algorithm 1.

    client:  h_k <- h_k - lr * grad_h l(phi, h_k; b')   over batches of its own;   then
             phi_k <- phi - lr * grad_phi l(phi_k, h_k; b)   over E passes;   sends phi_k, keeps h_k
    server:  phi <- sum_k (n_k / n) phi_k

Both parts at once (``first`` together) is FedPer: Arivazhagan, Aggarwal, Singh, Choudhary, 2019, arXiv:1912.00818. A
shared head above bodies that stay at home (``shared`` head) is LG-FedAvg: Liang et al., 2020, arXiv:2001.01523.

Running statistics belong to the part of their layer, and move in each step, also where it trains the other part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from fl_sim import Batch, Local, Loss
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes, train
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.base.parts import leaves_of, only


@dataclass
class FedRep(Strategy):
    """FedAvg over one part of the network, while the other one stays with the client; an empty head is FedAvg."""

    head: str = ""
    """Layers of the head, by name with commas; empty: the last layer; all or none: every layer or none."""
    shared: Literal["body", "head"] = "body"
    """The part that is federated; the other one stays with the client."""
    first: Literal["head", "body", "together"] = "head"
    """The part that trains first while the other one is fixed, or both together in each step (FedPer)."""
    head_epochs: Annotated[int, Ge(0)] = 0
    """Passes over the client's samples for the head; 0: as many steps as local.steps or local.epochs give the body."""

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """``head_epochs`` where both parts train together."""
        why = "strategy.first together has no steps for the head alone"
        return {"head_epochs": why} if self.first == "together" else {}

    def home(self, loss: Loss) -> Sequence[str]:
        """The leaves of the part that is not shared. Raises ConfigError for a layer that the network lacks."""
        head = leaves_of(loss, self.head)
        return head if self.shared == "body" else [k for k in loss.form.names if k not in head]

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """FedAvg's batches, with which the body trains, and the stream ``head``, drawn apart."""
        if self.first == "together":
            return super().streams(sizes, local, draw)
        own = replace(local, steps=0, epochs=self.head_epochs) if self.head_epochs else local
        return {**super().streams(sizes, local, draw), "head": passes(np.arange(sizes.train), own, draw("head"))}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """One part after the other; the reported loss is that of the body's steps, if it has any to train."""
        if self.first == "together":
            return super().local_update(model, state, batches, loss, local)
        inside = leaves_of(loss, self.head)
        head = [k for k in loss.trainable if k in inside]
        body = [k for k in loss.trainable if k not in inside]
        new, found = model, dict[str, Metrics]()
        for stream, leaves in (("head", head), ("train", body))[:: 1 if self.first == "head" else -1]:
            if leaves:
                new, found[stream] = train(new, batches[stream], local, only(loss.step_gradient, leaves))
        return new, state, found["train" if body else "head"]
