"""Meta-learning with a last linear layer that is solved for on a client's support, instead of adapted in steps.

    client:  W = solve(features of support);   g_k = gradient of l(scale * W; query) for the layers below, and for what
             the server learns beside them (``begin``), through the solution
    server:  an optimiser step of both, as MAML's

The layer's own weights are in no gradient: they keep their initial values, which central evaluation uses. A bias that
the layer has is 0 in the solution. Support is one batch, query another.

Legend: N samples, F features, K outputs.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from fl_sim import Batch, Local, Loss, rng
from fl_sim.errors import ConfigError
from fl_sim.local import Draw, Sizes, Streams, Update
from fl_sim.tree import Tree
from strategies.base.meta_learning.meta_gradients import LearnedBeside, MetaGradients, split
from strategies.base.naming import name_of


@dataclass
class SolvedHead(LearnedBeside):
    """A subclass says how the head is solved for (``solve``), and what is learned beside the model (``begin``)."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """The server's optimiser on the mean meta-gradient."""
    outer_lr: Annotated[float, Ge(0)] = 0.1
    """Learning rate of the server's optimiser; multiplied by server.lr."""
    anneal: Literal["constant", "linear"] = "constant"
    """outer_lr by round: constant, or linear to 0: outer_lr * (1 - (t - 1) / T) in round t of T."""
    support_size: Annotated[int, Ge(0)] = 0
    """Samples of a client's support set, drawn anew each round; 0: those that query leaves (half, if both are 0)."""
    query_size: Annotated[int, Ge(0)] = 0
    """Samples of its query set; 0: those that support leaves (half, if both are 0)."""
    refuses = (
        *MetaGradients.refuses,
        *("local.batch_size", "local.last_batch"),
        *(f"personalize_{name}" for name in ("lr", "optimizer", "batch_size")),
    )

    own_derivatives = True

    @property
    def whole_batches(self) -> str:
        """The head is solved for."""
        return "its head is solved for from all samples of support at once; use maml with strategy.order 1, or reptile"

    @abstractmethod
    def solve(self, x: Tensor, targets: Tensor, real: Tensor, learned: Tree) -> Tensor:
        """W (K, F) from the features of support x (N, F), one-hot targets (N, K), and what the server learns.

        ``real`` (N, 1) is 1, and 0 for rows of padding, which are 0 in x and targets.
        """

    def network_notes(self, loss: Loss, local: Local) -> Sequence[str]:
        """MAML's, and which layer is solved for. Raises ConfigError where this is no last linear layer of classes."""
        who, name = name_of(type(self)), head_of(loss)
        layer, y = dict(loss.training.named_modules())[name], loss.task.train["y"]
        if not isinstance(layer, nn.Linear):
            what = f"its head is solved for as a linear layer, and the network's last one, {name!r}, is no nn.Linear"
            raise ConfigError(f"strategy.name = {who!r}: {what}; use a network that ends with one")
        if y.ndim != 1 or y.is_floating_point():
            what = f"its head is solved for from one class a sample, and the task's y is {y.dtype} of {tuple(y.shape)}"
            raise ConfigError(f"strategy.name = {who!r}: {what}; use maml, anil or metasgd")
        with rng.keyed_globals(0):
            try:
                found = features(loss.initial(), first_samples(loss), name, loss, training=False).shape
            except Exception as error:  # a network may do anything with what its last layer returns
                what = f"the network does something after its last layer {name!r} ({type(error).__name__}: {error})"
                raise ConfigError(f"strategy.name = {who!r}: {what}; let it end with that layer") from error
        assert found[1] == layer.in_features, found
        what = f"{who}: the last layer ({name or 'the network'}) is solved for on each client's support; the global "
        what += (
            "model keeps its initial weights there, which central evaluation uses; personal evaluation solves for it"
        )
        return *super().network_notes(loss, local), what

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """One batch of support and one of query, from a keyed split of this round."""
        support, query = split(sizes.train, draw("split"), self.support_size, self.query_size, sizes.turns)
        return {"support": [support], "query": [query]} if sizes.train else {"support": [], "query": []}

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """The meta-gradients on query; the reported loss is that of the solved head on query."""
        support, query = list(batches["support"]), next(iter(batches["query"]))

        def outer(start: Tree, learned: Tree) -> Tensor:
            whole = {**model, **start}
            return loss({**whole, **self.solved(whole, support, learned, loss, training=True)}, query)

        start = {k: model[k] for k in loss.trainable}
        (meta, of_learned), value = torch.func.grad_and_value(outer, argnums=(0, 1))(start, payload["head"])
        return meta, state, {"loss": value}, {"head": of_learned}

    def adapt(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Tree:
        """The model with the head solved for on the client's whole training part, in evaluation mode."""
        return {**model, **self.solved(model, list(batches["own"]), payload["head"], loss, training=False)}

    def solved(self, model: Tree, support: Sequence[Batch], learned: Tree, loss: Loss, training: bool) -> Tree:
        """The leaves of the solved head; zeros where there is no sample."""
        name = head_of(loss)
        weight, bias = (f"{name}.{leaf}" if name else leaf for leaf in ("weight", "bias"))
        rest = {bias: torch.zeros_like(model[bias])} if bias in model else {}
        if not support:
            return {weight: torch.zeros_like(model[weight]), **rest}
        parts = []
        for batch in support:
            y = batch.data["y"].long()
            counts = torch.ones_like(y, dtype=torch.bool) if batch.mask is None else batch.mask
            if loss.task.ignore_index is not None:
                counts = counts & (y != loss.task.ignore_index)
            real = counts[:, None].to(model[weight])
            classes = torch.arange(len(model[weight]), device=y.device)
            targets = (y[:, None] == classes).to(real) * real  # torch's one_hot reads values, which vmap cannot
            parts.append((features(model, batch, name, loss, training) * real, targets, real))
        x, targets, real = (torch.cat(part) for part in zip(*parts, strict=True))
        return {weight: self.solve(x, targets, real, learned) * learned["scale"], **rest}


def head_of(loss: Loss) -> str:
    """The name of the last layer: the one with the last leaf that trains."""
    return loss.trainable[-1].rpartition(".")[0]


def features(model: Tree, batch: Batch, head: str, loss: Loss, training: bool) -> Tensor:
    """(N, F) what the layer ``head`` is given: what it returns where its weight is the identity and its bias 0."""
    weight, bias = (f"{head}.{leaf}" if head else leaf for leaf in ("weight", "bias"))
    eye = torch.eye(model[weight].shape[1], dtype=model[weight].dtype, device=model[weight].device)
    plain = {weight: eye, **({bias: torch.zeros_like(eye[0])} if bias in model else {})}
    found: Tensor = loss.outputs({**model, **plain}, batch, head, training)
    return found


def first_samples(loss: Loss) -> Batch:
    """A batch of two samples."""
    return Batch({k: v[:2].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))
