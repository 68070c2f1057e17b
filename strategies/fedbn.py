"""FedBN: normalisation layers stay with the client, since they hold what differs between the clients' features.

Li, Jiang, Zhang, Kamp, Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021,
arXiv:2102.07623, algorithm 1.

    client:  local training of the whole model;  its normalisation layers (weights and statistics) stay with it
    server:  as FedAvg, over all other layers

A client that has not trained yet (unseen, or not drawn so far) has the initial weights of these layers, and is
evaluated with statistics of its own: over one pass of its training part, the mean of each batch's in training mode.
Layers that normalise each sample (GroupNorm, LayerNorm) have weights only, and stay with the client too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fl_sim import Batch, Local, Loss
from fl_sim.errors import ConfigError
from fl_sim.kernels.layers import BATCH_NORMS
from fl_sim.local import Metrics
from fl_sim.tree import Tree
from strategies.base import Strategy

WITH_STATISTICS = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
LAYERS = (*WITH_STATISTICS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass
class FedBN(Strategy):
    """FedAvg over all but the normalisation layers."""

    def home(self, loss: Loss) -> Sequence[str]:
        """Weights and statistics of all normalisation layers. Raises ConfigError for a network without any."""
        inside = tuple(prefix for prefix, _ in layers(loss, LAYERS))
        if not (names := [k for k in loss.form.names if k.startswith(inside)]):
            what = "the network has no normalisation layer with weights or statistics"
            raise ConfigError(f"strategy.name = 'fedbn': {what}; use one with BatchNorm or GroupNorm, say")
        return names

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """FedAvg's; the client's own state says that it has trained."""
        new, _, metrics = super().local_update(model, state, batches, loss, local)
        return new, {"trained": torch.ones((), dtype=torch.bool, device=loss.device)}, metrics

    def own_model(self, model: Tree, state: Tree, batches: Iterable[Batch], loss: Loss) -> Tree:
        """The client's model; the statistics of one that has not trained are estimated on its training part."""
        shares = {} if state else momenta(loss)
        sums, count = {k: torch.zeros_like(model[k]) for k in shares}, torch.zeros(())
        for batch in batches if shares else ():
            # a step from statistics of 0 leaves momentum * (the batch's own)
            empty = {k: torch.zeros_like(model[k]) for k in loss.buffers if k in self.home(loss)}
            _, _, new = loss.gradient({**model, **empty}, batch)
            sums = {k: x + new[k] / shares[k] * batch.size for k, x in sums.items()}
            count = count + batch.size
        return {**model, **{k: torch.where(count > 0, x / count.clamp(min=1), model[k]) for k, x in sums.items()}}


def layers(loss: Loss, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, nn.Module]]:
    """(how the names of its leaves begin, layer) of all layers of these kinds."""
    return [(f"{k}." if k else "", m) for k, m in loss.training.named_modules() if isinstance(m, kinds)]


def momenta(loss: Loss) -> dict[str, float]:
    """Running statistic -> the share of a batch's own in it, after the first batch that a layer counts."""
    found: dict[str, float] = {}
    for prefix, layer in layers(loss, WITH_STATISTICS):
        momentum = getattr(layer, "momentum", None)
        share = float(isinstance(layer, BATCH_NORMS)) if momentum is None else float(momentum)
        found |= {prefix + k: share for k in ("running_mean", "running_var") if prefix + k in loss.buffers and share}
    return found
