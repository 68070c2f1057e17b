"""ANIL: MAML whose inner loop adapts the head alone; the initialisation of all layers is federated.

Raghu, Raghu, Bengio, Vinyals, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML", ICLR
2020, arXiv:1909.09157, section 4.

    client:  h_0 = h;   h_{i+1} = h_i - inner_lr * grad_h l(phi, h_i; support_i)   for i < n
             g_k = grad_{phi, h} l(phi, h_n; query)
    server:  as MAML

A head of all layers is MAML. Personal evaluation fine-tunes the head alone, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from fl_sim import Batch, Local, Loss
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from strategies.base.meta_learning.meta_gradients import after_steps
from strategies.base.parts import leaves_of, only
from strategies.maml import MAML


@dataclass
class ANIL(MAML):
    """MAML with an inner loop over the head; everything in the head is MAML, an empty head has no inner loop."""

    head: str = ""
    """Layers that adapt, by name with commas; empty: the last layer; all or none: every layer or none."""
    own_derivatives = True

    @property
    def whole_batches(self) -> str:
        """The inner loop is differentiated."""
        return "its inner loop over the head is differentiated; use maml with strategy.order 1, or reptile"

    def inside(self, loss: Loss) -> list[str]:
        """The leaves that adapt. Raises ConfigError for a layer that the network lacks."""
        named = leaves_of(loss, self.head)
        return [k for k in loss.trainable if k in named]

    def network_notes(self, loss: Loss, local: Local) -> Sequence[str]:
        """MAML's, and which leaves adapt."""
        return *super().network_notes(loss, local), f"anil: the head, which adapts, is {', '.join(self.inside(loss))}"

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The meta-gradient on query; the reported loss is that of the adapted model on query."""
        support, query = list(batches["support"]), next(iter(batches["query"]))

        def outer(start: Tree) -> torch.Tensor:
            adapted = after_steps(start, support, self.inner_step, self.inside(loss), model, loss, self.order)
            return loss({**model, **adapted}, query)

        meta, value = torch.func.grad_and_value(outer)({k: model[k] for k in loss.trainable})
        return meta, state, {"loss": value}

    def adapt(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Tree:
        """Local training of the head."""
        return train(model, batches["train"], local, only(loss.gradient, self.inside(loss)))[0]
