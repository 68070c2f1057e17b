"""The loss of one batch as a pure function of a whole model: what a local rule differentiates.

Randomness is passed in: dropout masks and augmentations are drawn from the batch's key, so that
the loop, ``vmap``, a retry and a device give the same numbers. No paper.

Legend: B batch, K outputs, D parameters.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.task import Task
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Batch:
    """One step's samples of one client, as stored (before the task's transform)."""

    data: Tree
    """x (B, ...), y (B, ...)."""
    words: Tensor
    """(2,) int32: the key of this step's draws."""
    mask: Tensor | None = None
    """(B,) bool: which samples are real; None means all."""
    active: Tensor | None = None
    """() bool: False for a padded step, which changes nothing; None means active."""

    @property
    def size(self) -> Tensor | int:
        """How many samples are real; 0 in a padded step."""
        return len(self.data["y"]) if self.mask is None else self.mask.sum()


class Dropout(nn.Module):
    """Inverted dropout whose mask is a function of a key handed in (Srivastava et al., JMLR 2014)."""

    words: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("words", torch.zeros(2, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; the mask of element i of the batch does not depend on the batch's length."""
        if not self.training or self.p == 0:
            return x
        return x * (rng.keep_mask(self.words, tuple(x.shape), self.p).to(x.dtype) * (1 / (1 - self.p)))


def _keyed(module: nn.Module) -> nn.Module:
    """Replace every ``nn.Dropout`` below ``module`` (in place) by the keyed one."""
    for name, child in module.named_children():
        module.__setattr__(name, Dropout(child.p) if type(child) is nn.Dropout else _keyed(child))
    return module


class Loss:
    """A module and a task bound together as functions of ``(model tree, batch)``.

    ``batched`` chooses how gradients are taken: by autograd (the loop), or by torch.func (under vmap).
    """

    def __init__(self, module: nn.Module, task: Task, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> None:
        self.task, self.dtype, self.device = task, dtype, torch.device(device)
        self.training = _keyed(copy.deepcopy(module)).to(self.device, dtype).train()
        self.evaluating = copy.deepcopy(self.training).eval()
        self.trainable = tuple(k for k, p in self.training.named_parameters() if p.requires_grad)
        self.buffers = tuple(k for k in self.training.state_dict() if k not in dict(self.training.named_parameters()))
        self._dropouts = [name for name, m in self.training.named_modules() if isinstance(m, Dropout)]
        self.batched = False

    def under_vmap(self) -> "Loss":
        """The same loss, for use inside ``torch.func.vmap``."""
        twin = copy.copy(self)
        twin.batched = True
        return twin

    def initial(self) -> Tree:
        """The module's own parameters and persistent buffers: the model of round 0."""
        return {k: v.detach().clone() for k, v in self.training.state_dict().items()}

    def _outputs(self, module: nn.Module, model: Mapping[str, Tensor], batch: Batch, words: Tensor | None) -> tuple[Tensor, Tree]:
        data = {k: v.to(self.dtype) if v.is_floating_point() or v.dtype == torch.uint8 else v for k, v in batch.data.items()}
        data = self.task.transform(data, words)
        keys = {} if words is None else {f"{name}.words": rng.fold(words, 16 + i) for i, name in enumerate(self._dropouts)}
        return torch.func.functional_call(module, {**model, **keys}, (data["x"],)), data

    def _mean(self, values: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return values.mean()
        return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)

    def __call__(self, model: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean training loss over the real samples of a batch, (): differentiable to any order in ``model``'s leaves."""
        return self._value({**model, **{k: model[k].clone() for k in self.buffers}}, batch)

    def _value(self, model: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss; writes into the buffers of ``model`` (BatchNorm's running statistics)."""
        outputs, data = self._outputs(self.training, model, batch, batch.words)
        return self._mean(self.task.loss(outputs, data), batch.mask)

    def gradient(self, model: Mapping[str, Tensor], batch: Batch) -> tuple[Tree, Tensor, Tree]:
        """(gradient by trainable name, loss (), new buffers) of one batch; nothing of it carries a graph."""
        buffers = {k: model[k].clone() for k in self.buffers}

        def value(params: Tree) -> Tensor:
            return self._value({**model, **buffers, **params}, batch)

        params = {k: model[k] for k in self.trainable}
        if self.batched:
            grads, loss = torch.func.grad_and_value(value)(params)
            return grads, loss, buffers
        leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
        loss = value(leaves)
        grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, grads, strict=True)), loss.detach(), buffers

    def metrics(self, model: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean loss and metrics over the real samples, in evaluation mode: no dropout, no augmentation. 0 where there are none."""
        functions: dict[str, Any] = {"loss": self.task.loss, **self.task.metrics}
        if len(batch.data["y"]) == 0:
            return {name: torch.zeros((), dtype=self.dtype, device=self.device) for name in functions}
        outputs, data = self._outputs(self.evaluating, model, batch, None)
        return {name: self._mean(f(outputs, data), batch.mask) for name, f in functions.items()}
