"""Personal evaluation: fine-tune the global model on a client's training part, and evaluate it on the held-out part.

Where an algorithm gives clients models of their own, it is these that are evaluated and fine-tuned.

Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage, "Federated Evaluation of On-device Personalization", 2019,
arXiv:1910.10252. This is a local rule, so that it runs on every engine; its reply has metrics only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from fl_sim import local
from fl_sim.engines.set_evaluation import parts_of
from fl_sim.learning.batch_means import COUNTED
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks import home_leaves
from fl_sim.learning.networks.queries_alone import BesideSupport
from fl_sim.learning.returned import checked
from fl_sim.learning.rule import Draw, LocalRule, Metrics, Sizes, Streams, passes
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree


@dataclass
class Personalize(LocalRule):
    """``steps`` steps of local training, and the metrics on the held-out part before and after them.

    With 0 steps, a client without a held-out part is evaluated on its training part, as in federated evaluation.
    """

    steps: int
    """Number of fine-tuning steps; 0 evaluates the global model unchanged."""
    lr: float
    """Learning rate of fine-tuning."""
    batch_size: int
    """Samples per step; 0 means all."""
    last_batch: Literal["keep", "drop", "join"] = "keep"
    """What becomes of a pass's last batch, as ``local.last_batch``."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Update rule of fine-tuning, without momentum, weight decay or clipping."""
    queries: Literal["together", "alone"] = "together"
    """alone: each held-out sample goes through the network alone with the training part; see ``BesideSupport``."""

    reply_kind = "none"

    def _local(self, settings: Local) -> Local:
        """The run's settings of local training, with those of fine-tuning."""
        kinds = replace(settings, last_batch=self.last_batch, optimizer=self.optimizer)
        return replace(kinds, steps=self.steps, lr=self.lr, batch_size=self.batch_size)

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """The stream ``train`` has the fine-tuning steps, ``test`` one batch of all held-out samples."""
        tuning = passes(np.arange(sizes.train), self._local(local), draw("personal")) if self.steps else []
        held = np.arange(sizes.train, sizes.train + sizes.held_out)
        streams = {"train": tuning, "test": [held if self.steps or sizes.held_out else np.arange(sizes.train)]}
        return streams if self.queries == "together" else {**streams, "support": [np.arange(sizes.train)]}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Fine-tune and evaluate; the reply tree and the new state are empty.

        Each metric is reported as ``NAME_before`` and ``NAME``, and the number of evaluated samples as ``held_out``.
        Where the task has set metrics, the outputs go along, from which the engine's caller computes them.
        """
        tuned, _ = local.train(model, batches["train"], self._local(local_), loss.gradient)
        return self._evaluated(model, tuned, batches, loss)

    def _evaluated(
        self, model: Tree, tuned: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss
    ) -> tuple[Tree, Tree, Metrics]:
        """The result of ``local_update`` for the model that is evaluated, and the one after fine-tuning."""
        test = next(iter(batches["test"]))
        if self.queries == "alone":
            loss = BesideSupport(loss, next(iter(batches["support"])))
        with torch.no_grad():
            before, after = loss.metrics(model, test), loss.metrics(tuned, test)
        count, sets = torch.as_tensor(test.size, dtype=loss.dtype), parts_of(loss, model, tuned, test)
        if COUNTED in test.data:  # a client without a label that counts enters no mean over clients
            count = count * (torch.as_tensor(test.weight) > 0)
        return {}, {}, {**{f"{k}_before": v for k, v in before.items()}, **after, "held_out": count, **sets}


@dataclass
class PersonalizeOwn(Personalize):
    """Personal evaluation of the clients' own models, as the algorithm's client half (``rule``) says."""

    rule: LocalRule = field(kw_only=True)
    """The client half whose ``home``, ``initial_state``, ``own_model`` and ``adapt`` count."""

    def home(self, loss: Loss) -> Sequence[str]:
        """The rule's."""
        return home_leaves.names_of(self.rule, loss)

    def initial_state(self, model: Tree) -> Tree:
        """The rule's."""
        return self.rule.initial_state(model)

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """The stream ``own`` besides: one pass over the training part; a last batch of one sample joins the others."""
        once = replace(self._local(local), steps=0, epochs=1, last_batch="join")
        own = passes(np.arange(sizes.train), once, draw("own"))
        return {**super().streams(sizes, local, draw), "own": own}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """``payload_update`` without a payload."""
        return self.payload_update(model, {}, state, batches, loss, local_)

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local_: Local,
    ) -> tuple[Tree, Tree, Metrics]:
        """Adapt and evaluate the client's own model.

        Raises ValueError where ``own_model`` or ``adapt`` gives no whole model.
        """
        if type(self.rule).adapt is not LocalRule.adapt:  # it may read batches that own_model has read
            batches = {k: list(stream) for k, stream in batches.items()}
        own = whole("own_model", self.rule.own_model(model, state, batches["own"], loss), model)
        tuned = self.rule.adapt(own, payload, state, batches, loss, self._local(local_))
        return self._evaluated(own, whole("adapt", tuned, model), batches, loss)


def whole(what: str, found: Tree, model: Tree) -> Tree:
    """What the method ``what`` of a rule returned. Raises ValueError where it is no model of the form of ``model``."""
    found = checked(f"the result of {what}", found)
    wrong = [k for k, x in model.items() if k not in found or (found[k].shape, found[k].dtype) != (x.shape, x.dtype)]
    if wrong:
        raise ValueError(f"{what} gives no {wrong[0]}, or of another shape or dtype; it must give all leaves")
    return {k: found[k] for k in model}
