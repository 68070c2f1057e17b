"""Per-FedAvg: FedAvg on the loss after one inner step, so that a client's own step adapts the global model well.

Fallah, Mokhtari, Ozdaglar, "Personalized Federated Learning: A Meta-Learning Approach", NeurIPS 2020, arXiv:2002.07948,
algorithm 1 with equations 8 and 10.

    client, each local step, batches D, D', D'' drawn independently:
        u = w - alpha * grad l(w; D)
        w <- w - lr * (I - alpha * H(w; D'')) grad l(u; D')
    server:  w <- mean_k w_k

The running statistics of a model with BatchNorm are those of the batches D', at u.

H is the Hessian of l, and v = grad l(u; D'). Order ``exact`` computes the product H v itself, ``hf`` the difference
(grad l(w + h v; D'') - grad l(w - h v; D'')) / (2 h), and ``fo`` leaves H v out. The paper has the constant h = delta;
the scaled step and its derivation are in ``strategies/base/hessian_products.py``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt

from fl_sim import Batch, Local, Loss, tree
from fl_sim.local import Draw, Metrics, Sizes, Streams, passes, train
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.base.hessian_products import accuracy, difference_product, exact_product, scaled_step


@dataclass
class PerFedAvg(Strategy):
    """FedAvg whose gradient is that of the loss after one inner step; inner_lr = 0 is FedAvg at equal weighting."""

    inner_lr: Annotated[float, Ge(0)] = 0.05
    """alpha: the inner step."""
    order: Literal["fo", "hf", "exact"] = "fo"
    """First order, Hessian-free, or with the exact Hessian-vector product."""
    hf_step: Literal["scaled", "fixed"] = "scaled"
    """Step h of the finite difference of hf: scaled to |w|, |v| and the dtype, or fixed: delta."""
    delta: Annotated[float, Gt(0)] = 1e-3
    """The step where hf_step is fixed."""
    weighting = "uniform"
    partial_work = "keep"

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """``hf_step``, unless ``order`` is ``hf``, and ``delta``, unless that is ``fixed``."""
        if self.order != "hf":
            return dict.fromkeys(("hf_step", "delta"), "acts with strategy.order hf")
        return {} if self.hf_step == "fixed" else {"delta": "acts with strategy.hf_step fixed"}

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Order ``hf`` takes the difference of two gradients, of which bf16 leaves no digit."""
        why = "strategy.order hf takes a difference of two gradients, of which bf16 leaves no digit"
        return {"precision": {"bf16": why}} if self.order == "hf" else {}

    @property
    def whole_batches(self) -> str:
        """The exact product differentiates twice."""
        why = "strategy.order = 'exact' differentiates the gradient; give hf, or fo"
        return why if self.order == "exact" else ""

    @property
    def own_derivatives(self) -> bool:
        """Order ``exact``."""
        return self.order == "exact"

    def network_notes(self, loss: Loss, local: Local) -> Sequence[str]:
        """How far ``hf`` is off from the exact product on this network, where that is much or the network has kinks."""
        if self.order != "hf":
            return ()
        step = self.delta if self.hf_step == "fixed" else None
        found = accuracy(loss, self.inner_lr, step, local.batch_size)
        return (found.sentence,) if found is not None and found.sentence else ()

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """D' are FedAvg's passes over the client's samples; D and D'' are independent draws of the same number."""
        everything = np.arange(sizes.train)
        outer = passes(everything, local, draw("order"))
        like = replace(local, steps=len(outer))
        names = {"inner", "hessian"} if self.order != "fo" else {"inner"}
        return {"train": outer, **{name: passes(everything, like, draw(name)) for name in sorted(names)}}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """One meta-step a batch of ``train``; the reported loss is that after the inner step."""
        others = {name: iter(stream) for name, stream in batches.items() if name != "train"}

        def gradient(at: Tree, outer: Batch) -> tuple[Tree, torch.Tensor, Tree]:
            return self.meta_gradient(
                at, next(others["inner"]), outer, next(others["hessian"]) if "hessian" in others else None, loss
            )

        new, metrics = train(model, batches["train"], local, gradient)
        return new, state, metrics

    def meta_gradient(
        self, at: Tree, inner: Batch, outer: Batch, hessian: Batch | None, loss: Loss
    ) -> tuple[Tree, torch.Tensor, Tree]:
        """(I - alpha H(at; hessian)) grad l(at - alpha grad l(at; inner); outer)."""
        grads, _, _ = loss.gradient(at, inner)
        grads, value, buffers = loss.gradient(tree.add(at, grads, -self.inner_lr), outer)
        if hessian is None:
            return grads, value, buffers
        return tree.add(grads, self.hessian_product(at, grads, hessian, loss), -self.inner_lr), value, buffers

    def hessian_product(self, at: Tree, vector: Tree, batch: Batch, loss: Loss) -> Tree:
        """H(at; batch) vector."""
        if self.order == "exact":
            return exact_product(at, vector, batch, loss)
        step = self.delta if self.hf_step == "fixed" else scaled_step(at, vector, loss)
        return difference_product(at, vector, batch, loss, step)
