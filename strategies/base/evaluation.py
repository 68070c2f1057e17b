"""The hooks of personal evaluation: which clients are asked, with what, and what becomes of their answers.

Where an algorithm has models of a client's own (``home``, ``own_model``), or adapts them in its own way (``adapt``),
the messages carry its name and numbers, from which the client constructs its half, as in training.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_sim import LocalRule, PoolingStrategy, dotted, rng
from fl_sim.wire import records
from strategies.base.naming import name_of, parameters_of
from strategies.base.personal import summarise
from strategies.base.schedule import personal_due

HOOKS = ("home", "own_model", "adapt")
"""Methods by which an algorithm says what a personal evaluation evaluates."""


class PersonalEvaluation(PoolingStrategy, LocalRule):
    """The part of ``Strategy`` that evaluates models on clients."""

    validating: Container[int] = ()
    """Nodes of validation clients."""
    seed: int = 0
    """Keys the choice of clients and stragglers, and all draws of clients."""

    def parameters(self) -> dict[str, object]:
        """The algorithm's numbers: the constructor's parameters, read from the attributes of the same names."""
        return {name: getattr(self, name) for name in parameters_of(type(self))}

    def named(self) -> dict[str, Any]:
        """The settings by which a client finds and constructs its half: the algorithm's name and numbers."""
        return {**dotted.flatten({"strategy": self.parameters()}), "strategy": name_of(type(self))}

    def evaluates(self, server_round: int, config: Mapping[str, Any]) -> bool:
        """Whether ``configure_evaluate`` asks any client in this round; a subclass's own is asked in each."""
        own = type(self).configure_evaluate is not PersonalEvaluation.configure_evaluate
        return personal_due(server_round, config) or own

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of a personal evaluation: to ``personalize.clients`` that train, as many unseen ones, and as many
        validation clients.
        """
        settings: dict[str, Any] = {**config, "seed": self.seed, "server-round": server_round}
        if not personal_due(server_round, settings):
            return []
        if any(getattr(type(self), hook) is not getattr(LocalRule, hook) for hook in HOOKS):
            settings |= self.named()
        most = int(settings.get("personalize.clients", 100))
        unseen = ids_of(getattr(grid, "holdout_node_ids", ()))
        self.unseen: Container[int] = unseen if isinstance(unseen, range) else set(unseen)
        chosen: list[int] = []
        seen = ids_of(grid.get_node_ids()) if settings.get("personalize.seen", True) else ()
        if validating := ids_of(getattr(grid, "validation_node_ids", ())):
            self.validating = validating if isinstance(validating, range) else frozenset(validating)
        for purpose, ids in (("seen", seen), ("unseen", unseen), ("val_unseen", validating)):
            chosen += [ids[i] for i in sorted(rng.sample(rng.key(self.seed, purpose), len(ids), min(most, len(ids))))]
        sent = {"arrays": records.without(arrays, self.at_home), **self.sent_beside(arrays)}
        contents = [RecordDict({**sent, "config": records.config(settings)}) for _ in chosen]
        return [Message(content, node, MessageType.EVALUATE) for content, node in zip(contents, chosen, strict=True)]

    def sent_beside(self, arrays: ArrayRecord) -> dict[str, ArrayRecord]:
        """The records of arrays in an evaluation's messages beside the model's. Default: {}, none."""
        return {}

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Statistics of a personal evaluation: ``personal_*`` (clients that train), ``unseen_*``, ``val_unseen_*``."""
        rows: dict[str, list[Mapping[str, Any]]] = {"personal": [], "unseen": [], "val_unseen": []}
        for r in replies:
            node = r.metadata.src_node_id
            whose = "unseen" if node in self.unseen else "val_unseen" if node in self.validating else "personal"
            rows[whose].append(records.numbers(r.content))
        numbers = {k: v for prefix, of_them in rows.items() for k, v in summarise(prefix, of_them).items()}
        return records.metrics(numbers) if numbers else None


def ids_of(nodes: Iterable[int]) -> Sequence[int]:
    """Node ids in ascending order; a range is returned unchanged, because it may have a million elements."""
    return nodes if isinstance(nodes, range) else sorted(nodes)


def everyone(grid: Grid) -> Sequence[int]:
    """The nodes of all clients that may train, ascending: those that are away at present (virtual time), too."""
    return ids_of(getattr(grid, "training_nodes", None) or grid.get_node_ids())
