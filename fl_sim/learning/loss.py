"""The loss of one batch as a pure function of a whole model: what a local rule differentiates.

Dropout masks and augmentations are drawn from the batch's key, so that the loop, ``vmap``, a retry and a real device
draw the same numbers.

Legend: B batch, K outputs, D parameters.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from fl_sim import rng, tree
from fl_sim.kernels import allocator, client_gradients, in_place, layers, leave_vmap
from fl_sim.kernels import outputs as nested
from fl_sim.kernels.low_rank import formed
from fl_sim.kernels.module_copies import cast, copy_of
from fl_sim.kernels.precision import Precision
from fl_sim.learning.batch import Batch
from fl_sim.learning.batch_means import Count, mean, means_of, weight_of, weights_of, with_weights
from fl_sim.learning.measures import SampleFunction, countable, of_each
from fl_sim.learning.networks.network_forms import Forms
from fl_sim.learning.networks.state_form import StateForm, whole_numbers
from fl_sim.learning.task import Task
from fl_sim.learning.transform import placed
from fl_sim.tree import Tree

__all__ = ["Batch", "Loss", "Term"]

Network = Callable[[Mapping[str, Tensor], Tensor], Any]
"""``(parameters and buffers by name, x (B, ...)) -> outputs``."""

Term = Callable[[Any, Tree], Tensor]
"""``(outputs, samples) -> (B,) or ()``: what a rule adds to the loss, see ``Loss.gradient``."""


class Loss:
    """A module and a task bound together as functions of ``(model tree, batch)``.

    ``batched`` chooses how gradients are taken. False: by autograd, for one client at a time. True, inside ``vmap``: by
    ``fl_sim.kernels.client_gradients`` on a CPU in full precision, for models without buffers; else by ``torch.func``.

    Parameters
    ----------
    module : nn.Module
        The network; it is copied.
    task : Task
        Its loss, metrics and transform.
    dtype : torch.dtype (default: float32)
        Of parameters and inputs.
    device : str or torch.device (default: "cpu")
        Where models and batches are.
    precision : {"full", "tf32", "bf16"} (default: "full")
        Of matrix products; "bf16" runs the network under autocast.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        precision: Precision = "full",
    ) -> None:
        self.dtype, self.device, self.precision = dtype, torch.device(device), precision
        task = task.bound()
        samples = with_weights(task.train, task.ignore_index)
        self.task = replace(task, train=samples, transform=placed(task.transform, dtype, self.device))
        self.training = cast(layers.replaced(copy_of(module)), dtype, self.device).train()
        self.form, self._whole = StateForm.of(self.training), whole_numbers(self.training)
        self._plain = self._many = Forms.of(self.training)
        if precision != "bf16":
            self._many = Forms.of(layers.many_clients_form(self.training, self.device.type))
        self.trainable = tuple(k for k, p in self.training.named_parameters() if p.requires_grad)
        self.buffers = tuple(k for k, _ in self.training.named_buffers() if k in self.training.state_dict())
        self._stacks = self.device.type == "cpu" and precision == "full" and not self.buffers
        self.dropouts = [name for name, m in self.training.named_modules() if isinstance(m, layers.Dropout)]
        self.batched = False

    def under_vmap(self, trial: bool = False) -> "Loss":
        """The same loss, for use inside ``torch.func.vmap``; a ``trial`` leaves nothing in the network's attributes."""
        _ = self.writes  # found once, before it is copied
        twin = copy.copy(self)
        twin.batched = True
        if trial:
            twin._many = Forms.of(layers.many_clients_form(self.training, self.device.type))
        return twin

    def received(self, model: Mapping[str, Tensor]) -> Tree:
        """A model out of a message, ready to train: this loss's dtype and device, no memory shared with ``model``.

        ``model`` is a trained tree, or a ``state_dict`` of the module (see ``networks/state_form.py``). Counters that a
        strategy averaged (Flower's average every array) are rounded back to whole numbers.
        """
        model = model if self.form.is_plain else self.form.tree(model)
        counters = {
            k: (x.round() if x.is_floating_point() else x).to(self._whole[k])
            for k, x in model.items()
            if k in self._whole
        }
        return tree.to({**model, **counters}, self.dtype, self.device, copy=True)

    def initial(self) -> Tree:
        """The module's own parameters and persistent buffers, each once: the model of round 0.

        A complex tensor is a pair of real numbers, with a last axis of 2; ``form.state_dict`` is the way back.
        """
        state = self.training.state_dict()
        return tree.clone(self.form.tree({k: state[k] for k in self.form.names}))

    @property
    def _forms(self) -> Forms:
        allocator.keep_large_buffers()
        return self._many if self.batched else self._alone

    @cached_property
    def _alone(self) -> Forms:
        """The network for one client at a time: on a CPU its faster form, where that gives the same outputs.

        A module that calls ``view`` on images, for example, fails in the faster form, whose memory is channels-last.
        """
        quick = (
            layers.one_client_form(self.training) if self.device.type == "cpu" and self.precision == "full" else None
        )
        if quick is None:
            return self._plain
        forms = Forms.of(quick)
        return forms if forms.agree(self._plain, self._first_outputs) else self._plain

    def _first_outputs(self, network: layers.FunctionalModule, training: bool) -> Any:
        """Outputs of a network for the first two samples."""
        batch = Batch({k: v[:2] for k, v in self.task.train.items()}, rng.words(0))
        return self._outputs(network, self.initial(), batch, batch.words if training else None)[0]

    @cached_property
    def writes(self) -> in_place.Writes:
        """What the network, the loss and the metrics write into, found on the first two samples."""
        trial, words = copy.copy(self), rng.words(0).to(self.device)
        trial.writes = in_place.Writes()

        def outputs_of(network: Network, data: Tree, training: bool) -> tuple[Tensor, Tree]:
            with torch.no_grad(), rng.keyed_globals(0):
                return trial._outputs(network, self.initial(), Batch(data, words), words if training else None)

        samples = {k: v[:2].to(self.device) for k, v in self.task.train.items()}
        functions = [self.task.loss, *self.task.metrics.values()]
        return in_place.find_writes(self._plain, outputs_of, functions, samples, self.buffers)

    def _called(self, function: SampleFunction, outputs: Tensor, data: Tree) -> Tensor:
        """``function(outputs, data)``, on copies where something writes into what it is given."""
        return in_place.call(function, outputs, data, self.writes.copies)

    def _outputs(
        self, network: Network, model: Mapping[str, Tensor], batch: Batch, words: Tensor | None
    ) -> tuple[Any, Tree]:
        copies, before = self.writes.copies, in_place.versions(batch.data)
        data = {
            k: v.to(self.dtype) if v.is_floating_point() or v.dtype == torch.uint8 else v for k, v in batch.data.items()
        }
        data = self.task.transform(in_place.copied(data) if copies else data, words)
        x = data["x"].clone() if copies else data["x"]
        if copies and words is None:
            model = {**model, **{k: model[k].clone() for k in self.buffers}}
        if words is not None and self.dropouts:
            keys = rng.fold(words, *range(16, 16 + len(self.dropouts))).reshape(-1, 2).unbind()
            model = {**model, **{f"{name}.words": key for name, key in zip(self.dropouts, keys, strict=True)}}
        if self.precision != "bf16":
            outputs = network(model, x)
        else:
            with torch.autocast(self.device.type, torch.bfloat16):
                outputs = nested.to(network(model, x), self.dtype)
        in_place.check_unwritten(batch.data, before)
        return outputs, data

    def arguments(self, model: Mapping[str, Tensor], batch: Batch, training: bool) -> tuple[Any, Tree]:
        """(the network's outputs, the batch after the task's transform): the arguments of loss and metrics."""
        model = {**model, **{k: model[k].clone() for k in self.buffers}}
        network = self._plain.training if training else self._plain.evaluating
        return self._outputs(network, model, batch, batch.words if training else None)

    def __call__(self, model: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean training loss over a batch's real samples, (): differentiable to any order in the model's leaves."""
        return self.value_by(self._plain.training, {**model, **{k: model[k].clone() for k in self.buffers}}, batch)

    def value_by(self, network: Network, model: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss by a network; writes into the buffers of ``model`` (BatchNorm's running statistics)."""
        outputs, data = self._outputs(network, model, batch, batch.words)
        return mean(self._called(self.task.loss, outputs, data), batch.mask, weights_of(data, self.task.ignore_index))

    def outputs(self, model: Mapping[str, Tensor], batch: Batch, layer: str = "", training: bool = True) -> Any:
        """What the network, or one of its layers, returns for a batch: logits and features for a rule of one's own.

        Differentiable in the model's leaves; call ``detach`` on what a teacher says. Rows of padding (``batch.mask``)
        have outputs too; ``plus`` of ``gradient`` leaves them out.

        Parameters
        ----------
        layer : str (default: "", the whole network)
            Name of a layer, as ``named_modules`` has it; its output in its last call is returned.
        training : bool (default: True)
            Whether the network is in training mode: dropout by the batch's key, the same as in ``gradient``, and
            BatchNorm by the batch's statistics. In both modes samples are augmented as in ``gradient``.

        Raises
        ------
        ValueError
            Where the network has no such layer, or does not call it.
        """
        network = self._plain.training if training else self._plain.evaluating
        own = {**model, **{k: model[k].clone() for k in self.buffers}}
        return self._outputs(partial(network.with_layer, layer=layer), own, batch, batch.words)[0][1]

    def gradient(
        self, model: Mapping[str, Tensor], batch: Batch, plus: Term | None = None, layer: str = ""
    ) -> tuple[Tree, Tensor, Tree]:
        """(gradient by trainable name, loss (), new buffers) of one batch; none of them carries a graph.

        ``plus`` adds a term to what is differentiated, for distillation and contrastive losses:
        ``plus(outputs, samples)`` gives one number a sample (B,), of which the mean over real samples counts, or a
        number () that takes account of ``batch.mask`` itself. ``outputs`` are those of the network, or of its ``layer``
        of that name; ``samples`` are transformed. The loss that is returned is without the term. Raises ValueError for
        a term of another shape.
        """
        grads, loss, buffers = self.step_gradient(model, batch, plus, layer)
        return {k: formed(g) for k, g in grads.items()}, loss, buffers

    def step_gradient(
        self, model: Mapping[str, Tensor], batch: Batch, plus: Term | None = None, layer: str = ""
    ) -> tuple[Tree, Tensor, Tree]:
        """As ``gradient``, for an optimiser step: some leaves may be a ``fl_sim.kernels.low_rank.Product``.

        This is the gradient of a linear layer's weight, kept as a product of two matrices. It behaves as a tensor in
        every operation; adding it to a weight does not compute the product first.
        """
        network, params = self._forms.training, {k: model[k] for k in self.trainable}
        if plus is None and self.batched and self._stacks and leave_vmap.is_possible():
            rest = {k: x for k, x in model.items() if k not in params}
            value = partial(self._value_of, network)
            return *client_gradients.gradient(value, params, rest, batch.data, batch.given), {}
        buffers = {k: model[k].clone() for k in self.buffers}

        def value_at(params: Tree) -> tuple[Tensor, Tensor]:
            if plus is None:
                loss = self.value_by(network, {**model, **buffers, **params}, batch)
                return loss, loss
            return self._value_plus(plus, layer, {**model, **buffers, **params}, batch)

        if self.batched:
            grads, (_, loss) = torch.func.grad_and_value(value_at, has_aux=True)(params)
            return grads, loss, buffers
        leaves = {k: p.detach().requires_grad_() for k, p in params.items()}
        total, loss = value_at(leaves)
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return tree.or_zeros(dict(zip(leaves, found, strict=True)), params), loss.detach(), buffers

    def _value_plus(self, plus: Term, layer: str, model: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """(the loss with a rule's own term, the loss)."""
        network = partial(self._plain.training.with_layer, layer=layer)
        (outputs, inner), data = self._outputs(network, model, batch, batch.words)
        term = plus(*in_place.copied((inner, data)))
        loss = mean(self._called(self.task.loss, outputs, data), batch.mask, weights_of(data, self.task.ignore_index))
        if term.shape not in ((), batch.data["y"].shape[:1]):
            size = len(batch.data["y"])
            raise ValueError(f"plus gives the shape {tuple(term.shape)} for {size} samples; it must be ({size},) or ()")
        return loss + (mean(term, batch.mask, None) if term.ndim else term), loss

    def _value_of(self, network: layers.FunctionalModule, params: Tree, rest: Tree, data: Tree, given: Tree) -> Tensor:
        """The loss as a function of tensors alone."""
        return self.value_by(network, {**rest, **params}, Batch(data, **given))

    def metrics(self, model: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean loss and metrics over the real samples, in evaluation mode: no dropout, no augmentation.

        ``fl_sim.accuracy`` is float64, the exact quotient of two counts. All are 0 where no sample or no label counts.
        """
        return self.weighted_metrics(model, batch)[0]

    def weighted_metrics(
        self, model: Mapping[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor | int, dict[str, Count]]:
        """(``metrics``, the batch's weight in a mean over batches, the counts of metrics that are ``accuracy``)."""
        functions: dict[str, Any] = {"loss": self.task.loss, **self.task.metrics}
        if len(batch.data["y"]) == 0:
            return {name: torch.zeros((), dtype=self.dtype, device=self.device) for name in functions}, 0, {}
        outputs, data = self._outputs(self._forms.evaluating, model, batch, None)
        weights, hits = weights_of(data, self.task.ignore_index), countable(functions, self.task.ignore_index)
        values = of_each({**functions, **hits}, lambda f: self._called(f, outputs, data), outputs, data["y"])
        means, counts = means_of(values, hits, data["y"], batch.mask, weights, self.dtype)
        return means, weight_of(len(data["y"]), batch.mask, weights), counts

    def evaluated(self, model: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """(the model's outputs (B, ...), the targets (B, ...)) of a batch in evaluation mode, padding included."""
        outputs, data = self._outputs(self._forms.evaluating, model, batch, None)
        return outputs, data["y"]
