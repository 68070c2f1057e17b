"""Personal evaluation: fine-tune the global model on a client's own training part, look at its held-out part before and after.

Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage, "Federated Evaluation of On-device Personalization", 2019,
arXiv:1910.10252. A local rule like any other, so it runs on every engine; it replies with numbers only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from fl_sim import local
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Draw, LocalRule, Metrics, Sizes, Streams, passes
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree


@dataclass
class Personalize(LocalRule):
    """``steps`` steps of plain local training; metrics on the held-out part before and after.

    With 0 steps, a client without a held-out part is evaluated on its training part, as federated evaluation does.
    """

    steps: int
    """Fine-tuning steps; 0 evaluates the global model as it is."""
    lr: float
    """Their learning rate."""
    batch_size: int
    """Samples a step; 0 means all."""

    reply_kind = "none"

    def _local(self, given: Local) -> Local:
        return replace(given, steps=self.steps, lr=self.lr, batch_size=self.batch_size)

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        """``train``: the fine-tuning steps; ``test``: one batch of all held-out samples."""
        tuning = passes(np.arange(sizes.train), self._local(local), draw("personal")) if self.steps else []
        held = np.arange(sizes.train, sizes.train + sizes.held_out)
        return {"train": tuning, "test": [held if self.steps or sizes.held_out else np.arange(sizes.train)]}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """No reply tree; each metric as ``NAME_before`` and ``NAME``, and ``held_out``, the number of samples they are means of."""
        test = next(iter(batches["test"]))
        tuned, _ = local.train(model, batches["train"], self._local(local_), loss.gradient)
        with torch.no_grad():
            before, after = loss.metrics(model, test), loss.metrics(tuned, test)
        count = torch.as_tensor(test.size, dtype=loss.dtype)
        return {}, {}, {**{f"{k}_before": v for k, v in before.items()}, **after, "held_out": count}
