"""A round's replies: as they come, and as a strategy with a payload gets them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fl_sim.tree import Tree

CODEC_ERROR = "codec_error"
"""The number of a client that says how much its codes have lost so far (``fl_sim.engines.coding``)."""


class Pooled(NamedTuple):
    """A round's replies, as ``payload_step`` gets them."""

    model: Tree
    """The pooled models, or updates."""
    payload: Mapping[str, Tree]
    """The pooled trees of the payload, by name."""
    clients: Sequence[Mapping[str, Any]]
    """The numbers of each client that replied: ``num-examples``, ``steps``, and its metrics."""


@dataclass
class Received:
    """What has come of replies so far."""

    partial: Tree | None = None
    """Their partial pool; None: no reply had arrays."""
    weight: float = 0.0
    """The sum of the clients' weights in the pool."""
    clients: list[Mapping[str, Any]] = field(default_factory=list)
    """The numbers of each client, where the strategy reads them."""
    losses: float = 0.0
    examples: float = 0.0
    """Sums over the clients that report a loss: of loss times examples, and of examples."""

    codec_errors: float = 0.0
    coded_examples: float = 0.0
    """The same sums of ``codec_error`` over the clients that report one."""

    @property
    def metrics(self) -> dict[str, int | float | list[int] | list[float]]:
        """The means of training loss and of ``codec_error``, weighted by examples; without what no client reports."""
        found: dict[str, int | float | list[int] | list[float]] = {}
        if self.examples:
            found["loss"] = self.losses / self.examples
        if self.coded_examples:
            found[CODEC_ERROR] = self.codec_errors / self.coded_examples
        return found

    def count(self, numbers: Mapping[str, Any], weight: float, keep: bool) -> None:
        """Take in the numbers of a client's reply; ``keep``: in ``clients`` too."""
        self.weight += weight
        self.clients += [numbers] if keep else []
        if isinstance(loss := numbers.get("loss"), (int, float)):
            self.losses += loss * numbers["num-examples"]
            self.examples += numbers["num-examples"]
        if isinstance(error := numbers.get(CODEC_ERROR), (int, float)):
            self.codec_errors += error * numbers["num-examples"]
            self.coded_examples += numbers["num-examples"]
