"""One network in training mode and in evaluation mode, and whether two forms of it compute the same."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from fl_sim import rng
from fl_sim.kernels import outputs
from fl_sim.kernels.layers import FunctionalModule, copy_sharing_tensors


class Forms(NamedTuple):
    """One network in training mode and in evaluation mode."""

    training: FunctionalModule
    evaluating: FunctionalModule

    @classmethod
    def of(cls, module: nn.Module) -> "Forms":
        """Both forms of a module in training mode; they share its tensors."""
        return cls(FunctionalModule(module), FunctionalModule(copy_sharing_tensors(module).eval()))

    def agree(self, plain: "Forms", call: Callable[[FunctionalModule, bool], Any]) -> bool:
        """Whether both modes give the outputs of the ``plain`` forms up to rounding; False where one raises.

        ``call``: (network, whether it is in training mode) -> its outputs for a few samples.
        """
        for own, other, training in zip(self, plain, (True, False), strict=True):
            try:
                results = []
                for network in (other, own):
                    with torch.no_grad(), rng.keyed_globals(0):
                        results.append(call(network, training))
                if not outputs.agree(results[0], results[1], rtol=1e-3, atol=1e-4):
                    return False
            except Exception:
                return False
        return True
