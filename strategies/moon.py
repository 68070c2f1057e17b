"""MOON: a contrastive term keeps a client's features near the global model's, and away from its own last model's.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, arXiv:2103.16257, equations 3 and 4.

    client:  l(w; x) - mu log( e^(s_g) / (e^(s_g) + e^(s_p)) )
             s_g = cos(z, z_global) / tau,  s_p = cos(z, z_own_last) / tau,  z = features of x; in no gradient but z's
    server:  as FedAvg

A client has no last model at its first visit, and then no term. The paper's features are the outputs of a two-layer
projection head, which belongs to the model of each algorithm that it is compared with: ``--model.projection 256``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus

from fl_sim import Batch, Local, Loss
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from strategies.base import Strategy

PROJECTION = "projection"
"""The layer whose outputs are the features where a network has it: the projection head of ``clients.models``."""


@dataclass
class Moon(Strategy):
    """FedAvg with the model-contrastive term; mu = 0 is FedAvg."""

    mu: Annotated[float, Ge(0)] = 1.0
    """Weight of the contrastive term."""
    tau: Annotated[float, Gt(0)] = 0.5
    """Temperature."""
    layer: str = ""
    """Layer whose outputs are the features; empty: "projection", and in a network without one the whole network."""

    @property
    def whole_batches(self) -> str:
        """Its term compares the features of three models."""
        return "its term compares features of whole batches; use fedprox or scaffold"

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local training with the term; the client keeps its new model. The reported loss is without the term."""

        layer = self.layer or (PROJECTION if isinstance(getattr(loss.training, PROJECTION, None), nn.Module) else "")

        def gradient(w: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            if not state:
                return loss.step_gradient(w, batch)
            far, near = (loss.outputs(m, batch, layer, training=False).detach() for m in (state, model))

            def term(z: Tensor, samples: Tree) -> Tensor:
                s_g, s_p = (cosine_similarity(z.flatten(1), f.flatten(1)) / self.tau for f in (near, far))
                return self.mu * softplus(s_p - s_g)

            return loss.step_gradient(w, batch, term, layer)

        new, metrics = train(model, batches["train"], local, gradient)
        return new, new, metrics
