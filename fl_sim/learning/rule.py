"""The client's half of an algorithm: a local rule, written for ONE client as pure functions of trees.

An engine may call it in a loop over clients, or vectorise it over a block of clients with ``torch.func.vmap``.

Legend: n samples of a client, S local steps, B batch size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from fl_sim import rng
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.settings import Local
from fl_sim.learning.training import Metrics as Metrics
from fl_sim.learning.training import train
from fl_sim.tree import Tree

Update = tuple[Tree, Tree, Metrics] | tuple[Tree, Tree, Metrics, Mapping[str, Tree]]
"""What a rule returns: (reply, new state, metrics), or (reply, new state, metrics, payload of the reply)."""
Streams = dict[str, list[np.ndarray]]
"""The batches of one client by the stream's name: one array of sample positions per step.

The positions 0..n-1 are the client's training part; those from n on are its held-out part.
"""


class Sizes(NamedTuple):
    """Numbers of a client's samples: training part and held-out part."""

    train: int
    held_out: int
    turns: int = 0
    """K where samples lie in turns of K classes (``Partition.turns``): position p is of class p mod K; 0: any order."""


class Draw(NamedTuple):
    """The random keys of one client in one round: ``draw("order")`` is the key for the purpose "order"."""

    seed: int
    server_round: int
    client: int

    def __call__(self, purpose: str) -> int:
        """The 64-bit key for one purpose; see ``fl_sim.rng.key``."""
        return rng.key(self.seed, purpose, self.server_round, self.client)


class LocalRule(ABC):
    """What one client computes from the model that it receives. Subclasses define ``local_update``.

    A rule gets gradients from ``loss.gradient``; logits, or the features of an inner layer, from ``loss.outputs``; and
    differentiates a term of its own beside the task's loss (distillation, contrastive losses) by ``plus`` of
    ``loss.gradient`` and ``loss.step_gradient``. All of them work on every engine.
    """

    reply_kind: Literal["weights", "update", "none"] = "weights"
    """The reply of ``local_update``: a model, another tree of its shape (a gradient, a difference), or no tree.

    BatchNorm's running statistics may be left out of an ``update``: then they stay as they are. Where it has them, they
    are the change ``new - model`` as ``tree.sub`` gives it. The new model gets the mean of the clients' statistics.
    """

    @property
    def whole_batches(self) -> str:
        """Why one process must have whole batches, so that no silo can train the rule; default: "", it need not.

        A silo (``--silo.processes``) computes ``loss.gradient`` and ``loss.step_gradient`` on several processes, each
        with a part of the batch. A rule that calls ``loss`` itself, ``loss.outputs`` or ``loss.metrics``, or reads
        ``batch.data``, needs the whole.
        """
        return ""

    @property
    def own_derivatives(self) -> bool:
        """Whether the rule differentiates ``loss(model, batch)`` itself, as second order does; default: no.

        It decides no number, only the engine ``auto`` of a network with convolutions: such derivatives are faster on
        vmap, and those of ``loss.gradient`` and ``loss.step_gradient`` mostly on the loop.
        """
        return False

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """The samples that each step uses. Default: one stream ``train`` of shuffled passes over the training part.

        Parameters
        ----------
        sizes : Sizes
            Numbers of the client's samples.
        local : Local
            The round's settings of local training.
        draw : Draw
            Keys for random choices.
        """
        return {"train": passes(np.arange(sizes.train), local, draw("order"))}

    def initial_state(self, model: Tree) -> Tree:
        """The state that a client has before its first round. Default: {}, no state.

        ``model`` is the global model of the round in which the client first trains. A pure function of ``model`` and
        the rule's parameters: the state does not depend on the client.
        """
        return {}

    def home(self, loss: Loss) -> Sequence[str]:
        """The leaves of the model that stay with the client and are in no message. Default: (), none.

        Names as in ``loss.initial()``: parameters, and buffers such as running statistics. Each client has values of
        its own, which begin with those of the network (``loss.initial()``), and gets them back in its next round, as
        it gets its state. The rule's methods still see whole models, and ``local_update`` returns one (``reply_kind``
        is ``weights``). Messages, replies and pools have the other leaves only. The global model keeps the initial
        values, which central evaluation uses; personal evaluation uses the client's (``own_model``). A pure function of
        the network and of the rule's parameters.
        """
        return ()

    def own_model(self, model: Tree, state: Tree, batches: Iterable[Batch], loss: Loss) -> Tree:
        """The client's own model: what personal evaluation evaluates, and fine-tunes. Default: ``model``.

        Parameters
        ----------
        model : Tree
            The global model, with the client's own leaves of ``home`` filled in.
        state : Tree
            The client's state, as ``local_update`` would get it. Evaluation does not change it.
        batches : Iterable of Batch
            One pass over the client's training part, in batches of ``personalize.batch_size``.
        loss : Loss
            Loss, gradient and metrics of the task.
        """
        return model

    def adapt(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Tree:
        """The client's model after it has adapted to its own samples: the second one of a personal evaluation.

        Default: local training with the settings of fine-tuning. A pure function of its arguments, for one client, as
        ``local_update``.

        Parameters
        ----------
        model : Tree
            The client's own model, see ``own_model``.
        payload : Mapping of str to Tree
            What the server sends beside the model (``down``), where a strategy has this method.
        state : Tree
            As in ``own_model``.
        batches : Mapping of str to Iterable of Batch
            ``train``: ``personalize.steps`` batches of ``personalize.batch_size``; ``own``: one pass over the client's
            training part in such batches. Both may be read more than once.
        loss : Loss
            Loss, gradient and metrics of the task.
        local : Local
            The settings of fine-tuning: ``personalize.lr``, ``personalize.optimizer`` and so on.

        Returns
        -------
        Tree
            A whole model, with the names, shapes and dtypes of ``model``.
        """
        return train(model, batches["train"], local, loss.gradient)[0]

    def up(self, trained: Tree) -> Mapping[str, Tree]:
        """The form of the payload that each reply has beside the model: trees of the right names, shapes and dtypes.

        A tree of one number is a scalar of each client. Default: {}, none. A pure function of ``trained``, the leaves
        of the global model that are trained and travel (not those of ``home``), and of the rule's parameters. A reply
        with another payload is a failure of its client.
        """
        return {}

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """``local_update`` of a rule with a payload: named trees that travel beside the model. Engines call this.

        Default: ``local_update``, without a payload.

        Parameters
        ----------
        payload : Mapping of str to Tree
            The trees in the message beside the model, such as the server's control variate; {} where it has none.
        model, state, batches, loss, local
            As in ``local_update``.

        Returns
        -------
        reply, new_state, metrics
            As in ``local_update``.
        payload : Mapping of str to Tree
            The trees of the reply, with the form of ``up``. May be left out where there are none.
        """
        return self.local_update(model, state, batches, loss, local)

    @abstractmethod
    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Compute one client's work in one round: a pure function of its arguments.

        ``model`` and ``state`` are this client's copies: what is written into them in place reaches no other client.

        Parameters
        ----------
        model : Tree
            The global model.
        state : Tree
            The last state but {} that this client returned in a round in which it did not fail; before that,
            ``initial_state(model)``.
        batches : Mapping of str to Iterable of Batch
            The batches of each stream.
        loss : Loss
            Loss, gradient and metrics of the task.
        local : Local
            The round's settings of local training.

        Returns
        -------
        reply : Tree
            See ``reply_kind``.
        new_state : Tree
            The client's state for its next round: any names, shapes and dtypes, which may differ between clients and
            rounds. {} keeps the state that the client has. A client whose new state holds NaN has failed.
        metrics : dict of 0-dim tensors
            At least ``loss``.
        """


def passes(positions: np.ndarray, local: Local, key: int) -> list[np.ndarray]:
    """S batches of B of the ``positions`` (n,), from shuffled passes that are cut as ``slices_of_pass`` says.

    There are ``local.steps`` steps if that is positive, over as many passes as needed, otherwise ``local.epochs``
    passes; no steps if n is 0. ``key`` determines the order of each pass.
    """
    n = len(positions)
    if n == 0:
        return []
    slices = slices_of_pass(n, local)
    steps = local.steps or local.epochs * len(slices)
    batches: list[np.ndarray] = []
    for number in range(-(-steps // len(slices))):
        order = positions[rng.permutation(rng.key(key, "pass", number), n)]
        batches += [order[part] for part in slices]
    return batches[:steps]


def slices_of_pass(n: int, local: Local) -> list[slice]:
    """The batches of one pass over n > 0 samples, as slices of the pass: B samples each, the last one maybe fewer.

    ``local.last_batch`` says what becomes of a last batch of fewer than B samples. ``drop`` leaves it out, but never
    the only batch. ``join`` adds it to the batch before where it is a single sample, so that this batch has B + 1.
    """
    size = min(local.batch_size or n, n)
    rest = n % size
    if local.last_batch == "drop":
        n -= rest
    ends = [*range(size, n, size), n]
    if local.last_batch == "join" and rest == 1:
        del ends[-2]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def mean_metrics(metrics: Sequence[Metrics]) -> Metrics:
    """The unweighted mean of each metric over several dicts with equal keys."""
    return {k: torch.stack([m[k] for m in metrics]).mean(0) for k in metrics[0]}
