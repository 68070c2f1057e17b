"""Evaluation of networks that normalise by the batch: each sample goes through the network alone with a support batch.

BatchNorm without running statistics normalises in evaluation too, so that its outputs for a sample depend on which
samples it is evaluated with. In few-shot learning that is transductive: queries help to classify each other. Nichol,
Achiam, Schulman (Reptile), 2018, arXiv:1803.02999, section 6.1, tell both figures apart.

Legend: S samples of support, Q of query.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fl_sim.kernels import outputs
from fl_sim.kernels.layers import FunctionalModule, has_batch_norm
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks.network_forms import Forms

AT_ONCE = 1024
"""Samples that pass through the network at once, about; a bound of memory."""


def normalises_together(module: nn.Module) -> bool:
    """Whether a network has BatchNorm without running statistics, which normalises by the batch in evaluation too."""
    return has_batch_norm(module) and any(getattr(m, "track_running_stats", None) is False for m in module.modules())


class BesideSupport(Loss):
    """A loss whose metrics and outputs in evaluation are of each sample alone with the samples of ``support``.

    Training is unchanged. An empty support leaves each sample to itself. Batches must not be padded, which holds on the
    loop, where all networks with BatchNorm run.
    """

    def __init__(self, loss: Loss, support: Batch) -> None:
        vars(self).update(vars(loss))
        buffers = dict(self.training.named_buffers())
        x, _ = self._outputs(lambda _, x: x, buffers, support, None)
        self._beside = Forms(self._plain.training, Alone(self._plain.evaluating.module, x))

    @property
    def _forms(self) -> Forms:
        return self._beside


class Alone(FunctionalModule):
    """A network as a function of its tensors and queries: the output of each is that beside ``support`` (S, ...)."""

    def __init__(self, module: nn.Module, support: Tensor) -> None:
        super().__init__(module)
        self.support = support

    def __call__(self, values: Mapping[str, Tensor], x: Tensor) -> Any:
        """Nested outputs (Q, ...) of x (Q, ...). Raises TypeError for outputs that are no tensors of samples."""

        def of_one(query: Tensor) -> Any:
            together = FunctionalModule.__call__(self, values, torch.cat([self.support, query[None]]))
            return outputs.mapped(lambda out: out[-1], together)

        return torch.func.vmap(of_one, chunk_size=max(AT_ONCE // (len(self.support) + 1), 1))(x)
