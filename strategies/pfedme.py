"""pFedMe: personal models are the minimisers of Moreau envelopes around the local model, which follows them.

Dinh, Tran, Nguyen, "Personalized Federated Learning with Moreau Envelopes", NeurIPS 2020, arXiv:2006.08848, algorithm
1.

    client:  w_k <- w;   each local step, batch D:
             theta_k ~ argmin l(theta; D) + lam/2 |theta - w_k|^2,   by K steps of
                 theta_k <- theta_k - personal_lr * (grad l(theta_k; D) + lam * (theta_k - w_k))
             w_k <- w_k - lr * lam * (w_k - theta_k)
    server:  w <- w + server_lr * mean_k (w_k - w),   server_lr is the paper's beta

In a round theta_k begins at w and goes on from one local step to the next, as in the authors' code. It is the client's
state, and in no message. The K steps contract only where personal_lr * lam < 2; anything else is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from fl_sim import Batch, Local, Loss, tree
from fl_sim.errors import ConfigError
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from strategies.base import Strategy


@dataclass
class PFedMe(Strategy):
    """Clients minimise their Moreau envelope; all weigh the same."""

    lam: Annotated[float, Gt(0)] = 15.0
    """Strength of the pull of a personal model toward the local one; a large value makes both equal."""
    personal_lr: Annotated[float, Gt(0)] = 0.05
    """Step of the personal model."""
    personal_steps: Annotated[int, Ge(1)] = 5
    """K, steps of the personal model on the batch of each local step."""
    weighting = "uniform"
    partial_work = "keep"

    def __post_init__(self) -> None:
        # Where several runs train as one batch the numbers are tensors; each run has checked its own.
        plain = all(isinstance(x, int | float) for x in (self.lam, self.personal_lr))
        if plain and not self.personal_lr * self.lam < 2:
            what = f"strategy.lam = {self.lam!r}, strategy.personal_lr = {self.personal_lr!r}: their product must be"
            raise ConfigError(f"{what} below 2, or the personal steps diverge from the local model; lower one of them")

    def toward(self, theta: Tree, w: Tree, batch: Batch, loss: Loss) -> tuple[Tree, Tensor, Tree]:
        """(theta after K steps, the loss () before the last one, new buffers); a padded step changes nothing."""
        new, value, buffers = theta, batch.data["x"].new_zeros(()), dict[str, Tensor]()
        for _ in range(self.personal_steps):
            grads, value, buffers = loss.gradient(new, batch)
            pulled = tree.add(grads, tree.sub(new, w), self.lam)
            new = {**tree.add(new, pulled, -self.personal_lr), **buffers}
        return (new if batch.active is None else tree.where(batch.active, new, theta)), value, buffers

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local steps toward the personal models; the reported loss is that of the personal model."""
        theta: Tree = {}

        def gradient(w: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            nonlocal theta
            theta, value, buffers = self.toward(theta or model, w, batch, loss)
            return {k: self.lam * (w[k] - theta[k]) for k in loss.trainable}, value, buffers

        new, metrics = train(model, batches["train"], local, gradient)
        return new, theta, metrics

    def own_model(self, model: Tree, state: Tree, batches: Iterable[Batch], loss: Loss) -> Tree:
        """theta_k; of a client that has not trained, K steps on each batch of one pass over its training part."""
        theta = state or model
        for batch in () if state else batches:
            theta, _, _ = self.toward(theta, model, batch, loss)
        return theta
