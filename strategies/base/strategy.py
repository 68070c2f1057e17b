"""One algorithm's two halves on Flower's hooks: what all strategies have in common.

The server half chooses clients, makes their messages, names a pool and takes the server step. The client half (a
``LocalRule``) is what one client computes. A variant overrides only its difference.
"""

import inspect
from abc import ABC
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_sim import Batch, Local, LocalRule, Loss, Pool, PoolingStrategy, dotted, rng, tree
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from strategies.base.cohort import choose, stragglers
from strategies.base.personal import summarise
from strategies.pools.mean import Mean

PACKAGE = "strategies"
"""Modules of this package are named by their last part in messages and configs.

Old runs hold these names: keep them.
"""


class Strategy(PoolingStrategy, LocalRule, ABC):
    """Base of all strategies here.

    The constructor's parameters are the algorithm's numbers. They travel in each message, and the client's half is made
    from them alone: it holds no more than these numbers. What the server keeps from round to round is ``server_state``.
    The run's own numbers (``cohort``, ``seed``, ``server_lr``, ``weighting``) are attributes set by the run.
    """

    kind = "strategy"
    weighting: Literal["examples", "uniform"] = "examples"
    """Weight of a client in the pool: its number of training samples, or 1."""
    partial_work: Literal["drop", "keep"] = "drop"
    """Whether the partial work of stragglers is used."""
    refuses: tuple[str, ...] = ()
    """Settings that mean nothing to this algorithm: setting one is an error."""
    cohort: int = 0
    """Clients a round; 0 means all."""
    seed: int = 0
    """Keys the choice of clients and stragglers, and all draws of clients."""
    server_lr: float = 1.0
    """Step of the server toward the pooled model."""
    server_state: Mapping[str, Tree] = {}
    """What ``server_step`` keeps for the next round (momentum, say), by name.

    Assign a new mapping; checkpoints keep it.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """Attributes as older versions wrote them into checkpoints, and their names today."""

    # Server half ----------------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The reduction of replies; default: the weighted mean."""
        return Mean()

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """The new global model. Default: ``model + server_lr * (pooled - model)``."""
        return tree.lerp(model, pooled, self.server_lr)

    def parameters(self) -> dict[str, Any]:
        """The algorithm's numbers by name: the constructor's parameters, read back from the attributes of the same
        names.
        """
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def scheduled(self) -> str:
        """The setting that makes a round depend on how many there are; empty where none does."""
        return ""

    def __getstate__(self) -> dict[str, Any]:
        """What a checkpoint keeps: all attributes but the global model, which it keeps anyway."""
        return {k: v for k, v in vars(self).items() if k != "model"}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take over what a checkpoint kept (``__getstate__``)."""
        vars(self).update({self.renamed.get(name, name): value for name, value in kept.items()})

    def summary(self) -> None:
        """Flower's hook to print the strategy. The config file holds all of it, so nothing is printed."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages to a keyed sample of ``cohort`` clients; stragglers get less work, or none where it would be
        dropped.
        """
        settings = self.round_settings(server_round, config)
        self.model, self.rounds = records.decode(arrays), int(settings.get("rounds", 0))
        ids = _ids(grid.get_node_ids())
        chosen = choose(len(ids), self.cohort, self.seed, server_round)
        work = stragglers(chosen, self.seed, server_round, settings)
        dropped = set(work) if self.partial_work == "drop" else set()
        self.dropped = sorted(dropped)
        contents: dict[float | None, RecordDict] = {}  # one object for equal contents: the grid reads it once
        sent = []
        for c in chosen:
            if c not in dropped:
                share = work.get(c)
                if share not in contents:
                    own = {} if share is None else {"system.work": share}
                    contents[share] = RecordDict({"arrays": arrays, "config": records.config({**settings, **own})})
                sent.append((contents[share], ids[c]))
        return flower.requests(sent, MessageType.TRAIN)

    def round_settings(self, server_round: int, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings in a round's messages: the run's (``config``), the algorithm's numbers, and the round."""
        numbers = dotted.flatten({"strategy": self.parameters()})
        own = {"strategy": name_of(type(self)), "seed": self.seed, "weighting": self.weighting}
        return {**config, **numbers, **own, "server-round": server_round}

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
        kept = type(self).server_step is not Strategy.server_step  # it may keep its result and write into it later
        return records.encode(tree.clone(new) if kept else new), MetricRecord({"loss": losses / weights})

    def _take(self, partial: Tree | None, reply: Message) -> Tree | None:
        content = records.of(reply.content, ArrayRecord)
        if "pool" in content:
            block = records.decode(content["pool"])
            return block if partial is None else self.pool.merge(partial, block)
        if not content:
            return partial
        single = records.decode(next(iter(content.values())))
        examples = records.numbers(reply.content)["num-examples"]
        weight = float(examples) if self.weighting == "examples" else 1.0
        started = self.pool.start(single) if partial is None else partial
        return self.pool.add(
            started, {k: v[None] for k, v in single.items()}, torch.tensor([weight], dtype=torch.float64)
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages for personal evaluation, in the rounds that ``config`` asks for it.

        At most ``personalize.clients`` clients that train and as many that never do, the same in every round.
        """
        settings: dict[str, Any] = {**config, "seed": self.seed, "server-round": server_round}
        every, last = int(settings.get("personalize.every", 0)), int(settings.get("rounds", 0))
        due = server_round == last or (every and server_round % every == 0)
        if not settings.get("personalize.steps", 0) or not due:
            return []
        most = int(settings.get("personalize.clients", 100))
        unseen = _ids(getattr(grid, "holdout_node_ids", ()))
        self.unseen: Container[int] = unseen if isinstance(unseen, range) else set(unseen)
        chosen: list[int] = []
        for purpose, ids in (("seen", _ids(grid.get_node_ids())), ("unseen", unseen)):
            chosen += [ids[i] for i in sorted(rng.sample(rng.key(self.seed, purpose), len(ids), min(most, len(ids))))]
        contents = [RecordDict({"arrays": arrays, "config": records.config(settings)}) for _ in chosen]
        return [Message(content, node, MessageType.EVALUATE) for content, node in zip(contents, chosen, strict=True)]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Personal evaluation in a few numbers: seen clients as ``personal_*``, clients that never train as
        ``unseen_*``.
        """
        rows = [(r.metadata.src_node_id in self.unseen, records.numbers(r.content)) for r in replies]
        numbers = {
            **summarise("personal", [row for unseen, row in rows if not unseen]),
            **summarise("unseen", [row for unseen, row in rows if unseen]),
        }
        return records.metrics(numbers) if numbers else None

    # Client half ----------------------------------------------------------------------------------------------------

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local training along ``gradient``; replies with the new model. See ``LocalRule.local_update``."""
        new, metrics = train(model, batches["train"], local, lambda m, batch: self.gradient(m, model, batch, loss))
        return new, state, metrics

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        """(gradient, loss, new buffers) of one step at ``model``; ``anchor`` is the global model that the client
        received.
        """
        return loss.step_gradient(model, batch)


def name_of(cls: type) -> str:
    """How a client finds its half: the module's last part for what ships here, ``package.module:Class`` for a user's
    own.
    """
    package, _, module = cls.__module__.rpartition(".")
    return module.replace("_", "-") if package == PACKAGE else f"{cls.__module__}:{cls.__qualname__}"


def _ids(nodes: Iterable[int]) -> Sequence[int]:
    """Node ids in ascending order; a range stays one, however long."""
    return nodes if isinstance(nodes, range) else sorted(nodes)
