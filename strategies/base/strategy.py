"""One algorithm's two halves on Flower's hooks. No paper: what is here is common to all.

The server half: which clients, what they are told, which pool, the server step. The client half (a
``LocalRule``): what one client computes. A variant overrides only its difference.
"""

import inspect
from abc import ABC
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_sim import local, rng, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import LocalRule, Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from fl_sim.wire.pool import Pool, PoolingStrategy
from strategies.base.personal import summarise
from strategies.pools.mean import Mean

PACKAGE = "strategies"
"""The package whose modules are named by their last part in messages and configs; never renamed, old runs name it."""


class Strategy(PoolingStrategy, LocalRule, ABC):
    """Base of all strategies here. The constructor's parameters are the algorithm's numbers: they travel in each message.

    The run's own numbers are attributes, set by whoever starts the run.
    """

    kind = "strategy"
    weighting: Literal["examples", "uniform"] = "examples"
    """Weight of a client in the pool: its number of training samples, or 1."""
    partial_work: Literal["drop", "keep"] = "drop"
    """What happens to stragglers' partial work."""
    refuses: tuple[str, ...] = ()
    """Settings that mean nothing to this algorithm: setting one is an error."""
    cohort: int = 0
    """Clients a round; 0 means all."""
    seed: int = 0
    """Keys the choice of clients and stragglers, and all draws of clients."""
    server_lr: float = 1.0
    """Step of the server toward the pooled model."""

    # Server half ---------------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The reduction of replies; default: the weighted mean."""
        return Mean()

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """The new global model. Default: ``model + server_lr * (pooled - model)``."""
        return tree.lerp(model, pooled, self.server_lr)

    def parameters(self) -> dict[str, Any]:
        """The algorithm's numbers by name: the constructor's parameters, read back from the attributes of the same names."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def scheduled(self) -> str:
        """The setting that makes a round depend on how many there are; empty where none does."""
        return ""

    def __getstate__(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: all but the global model, which it keeps anyway."""
        return {k: v for k, v in vars(self).items() if k != "model"}

    def summary(self) -> None:
        """Flower's hook to print the strategy; the config file tells it all, so nothing is printed."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages to a keyed sample of ``cohort`` clients; stragglers get less work, or none where partial work is dropped."""
        settings = self.round_settings(server_round, config)
        self.model, self.rounds = records.shared(arrays), int(settings.get("rounds", 0))
        ids = _ids(grid.get_node_ids())
        chosen = sorted(
            rng.sample(rng.key(self.seed, "cohort", server_round), len(ids), min(self.cohort or len(ids), len(ids)))
        )
        slow = self.stragglers(chosen, server_round, settings)
        dropped = set(slow) if self.partial_work == "drop" else set()
        self.dropped = sorted(dropped)
        contents: dict[Any, RecordDict] = {}  # one object for all that are told the same: it is read once
        sent = []
        for c in chosen:
            if c not in dropped:
                work = slow.get(c, {})
                own = tuple(work.items())
                if own not in contents:
                    contents[own] = RecordDict({"arrays": arrays, "config": records.config({**settings, **work})})
                sent.append((contents[own], ids[c]))
        return flower.requests(sent, MessageType.TRAIN)

    def round_settings(self, server_round: int, config: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the messages of round ``server_round`` carry: ``config`` and what this strategy adds to it."""
        numbers = {f"strategy.{k}": v for k, v in self.parameters().items()}
        own = {
            "strategy": name_of(type(self)),
            "seed": self.seed,
            "weighting": self.weighting,
            "server-round": server_round,
        }
        return {**config, **numbers, **own}

    def stragglers(
        self, chosen: Sequence[int], server_round: int, settings: Mapping[str, Any]
    ) -> dict[int, dict[str, float]]:
        """Client -> the share of its work that it finishes, for ``system.stragglers`` of those chosen.

        The share is j / E with j uniform in 1 .. E - 1 for E epochs or steps (Li et al. 2020, section 5.2); twentieths
        where E is 1. The draws depend on seed, round and client alone, so they are the same for every strategy; at
        least one client is no straggler.
        """
        count = min(round(float(settings.get("system.stragglers", 0.0)) * len(chosen)), len(chosen) - 1)
        if count <= 0:
            return {}
        full = int(settings.get("local.steps", 0) or settings.get("local.epochs", 1))
        parts = full if full > 1 else 20
        keys = {c: rng.key(self.seed, "straggler", server_round, c) for c in chosen}
        slow = sorted(chosen, key=lambda c: keys[c])[:count]
        return {c: {"system.work": (1 + rng.key(keys[c], "work") % (parts - 1)) / parts} for c in slow}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge partial pools (or single models) as they come, then take the server step."""
        partial: Tree | None = None
        losses = weights = 0.0
        for reply in replies:
            partial = self._take(partial, reply)
            numbers = records.numbers(reply.content)
            losses += numbers.get("loss", 0.0) * numbers["num-examples"]
            weights += numbers["num-examples"]
        if partial is None:
            return None, None
        pooled = self.pool.finish(partial, self.model)
        new = self.server_step(self.model, pooled, server_round)
        kept = (
            type(self).server_step is not Strategy.server_step
        )  # an own step may keep what it returns, and write into it later
        return records.held(tree.clone(new) if kept else new), MetricRecord({"loss": losses / weights})

    def _take(self, partial: Tree | None, reply: Message) -> Tree | None:
        content = records.of(reply.content, ArrayRecord)
        if "pool" in content:
            block = records.owned(content["pool"])
            return block if partial is None else self.pool.merge(partial, block)
        if not content:
            return partial
        single = records.model(next(iter(content.values())))
        examples = records.numbers(reply.content)["num-examples"]
        weight = float(examples) if self.weighting == "examples" else 1.0
        started = self.pool.start(single) if partial is None else partial
        return self.pool.add(
            started, {k: v[None] for k, v in single.items()}, torch.tensor([weight], dtype=torch.float64)
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages for personal evaluation, where ``config`` asks for it in this round; at most so many seen and unseen clients."""
        settings: dict[str, Any] = {**config, "seed": self.seed, "server-round": server_round}
        every, last = int(settings.get("personalize.every", 0)), int(settings.get("rounds", 0))
        if not settings.get("personalize.steps", 0) or not (
            server_round == last or (every and server_round % every == 0)
        ):
            return []
        most = int(settings.get("personalize.clients", 100))
        unseen = _ids(getattr(grid, "holdout_node_ids", ()))
        self.unseen: Container[int] = unseen if isinstance(unseen, range) else set(unseen)
        chosen: list[int] = []
        for purpose, ids in (("seen", _ids(grid.get_node_ids())), ("unseen", unseen)):
            chosen += [ids[i] for i in sorted(rng.sample(rng.key(self.seed, purpose), len(ids), min(most, len(ids))))]
        return [
            Message(RecordDict({"arrays": arrays, "config": records.config(settings)}), node, MessageType.EVALUATE)
            for node in chosen
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Personal evaluation in a few numbers: seen clients as ``personal_*``, clients that never train as ``unseen_*``."""
        rows = [(r.metadata.src_node_id in self.unseen, records.numbers(r.content)) for r in replies]
        numbers = {
            **summarise("personal", [row for unseen, row in rows if not unseen]),
            **summarise("unseen", [row for unseen, row in rows if unseen]),
        }
        return records.metrics(numbers) if numbers else None

    # Client half ---------------------------------------------------------------------------------------------------

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local training along ``gradient``; replies with the new model. See ``LocalRule.local_update``."""
        new, metrics = local.train(
            model, batches["train"], local_, lambda m, batch: self.gradient(m, model, batch, loss)
        )
        return new, state, metrics

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        """(gradient, loss, new buffers) of one step at ``model``; ``anchor`` is the global model that the client received."""
        return loss.gradient(model, batch, products=True)


def name_of(cls: type) -> str:
    """How a client finds its half: the module's last part for what ships here, ``package.module:Class`` for a user's own."""
    package, _, module = cls.__module__.rpartition(".")
    return module.replace("_", "-") if package == PACKAGE else f"{cls.__module__}:{cls.__qualname__}"


def _ids(nodes: Iterable[int]) -> Sequence[int]:
    """Node ids in ascending order; a range stays one, however long."""
    return nodes if isinstance(nodes, range) else sorted(nodes)
