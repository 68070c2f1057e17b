"""The base class of strategies: an algorithm's server half, on Flower's hooks, and its client half.

The server half chooses clients, creates their messages, names a pool and takes the server step. The client half (a
``LocalRule``) is what one client computes. A subclass overrides only what differs.
"""

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_sim import Batch, Local, LocalRule, Loss, Pool, tree
from fl_sim.errors import ConfigError
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from fl_sim.wire import flower, payload, records
from fl_sim.wire.payload import PayloadPool
from strategies.base.cohort import choose, stragglers
from strategies.base.evaluation import PersonalEvaluation, everyone, ids_of
from strategies.base.round_replies import Pooled, Received
from strategies.base.running_statistics import MeanOfStatistics
from strategies.pools.mean import Mean


class Strategy(PersonalEvaluation, ABC):
    """Base class of this project's strategies.

    The constructor's parameters are the algorithm's numbers. They travel in each message, and the client's half is
    constructed from them alone. What the server keeps from round to round is ``server_state``. The run sets its own
    numbers as attributes: ``cohort``, ``seed``, ``server_lr``, ``weighting``.
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
    rounds: int = 0
    """The round at which schedules end; known once a round has been configured."""
    server_lr: float = 1.0
    """Step of the server toward the pooled model."""
    server_state: Mapping[str, Tree] = {}
    """What ``server_step`` keeps for the next round (momentum, say), by name.

    Assign a new mapping; checkpoints keep it.
    """

    payload_pools: ClassVar[Mapping[str, Pool]] = {}
    """The reductions of the payload's trees in replies (``up``), by name; the weighted mean of those not named."""
    needs_validation: ClassVar[bool] = False
    """Whether the server's step reads the loss on validation samples; a run without any is refused."""
    validate: Callable[[Tree], float] | None = None
    """The loss of a model on the validation samples that the server has: set by the run where it is needed."""
    population: int = 0
    """Number of clients that may train: set by ``configure_train``."""

    required_numbers: ClassVar[Mapping[str, Sequence[str]]] = {
        "train": ("num-examples",),
        "personal": ("held_out", "loss_before", "loss"),
    }
    state_since: int = 0
    """The round after which ``server_state`` began: 0, or that at which a fork with other numbers began."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Attributes as older versions wrote them into checkpoints, and their names today."""

    # Server half ----------------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The reduction of replies; default: the weighted mean."""
        return Mean()

    @property
    def reply_pool(self) -> Pool:
        """``pool`` for what is trained, the weighted mean for running statistics, ``payload_pools`` for the payload."""
        pool = self.with_statistics(self.pool)
        if type(self).up is LocalRule.up or {type(p) for p in (pool, *self.payload_pools.values())} == {Mean}:
            return pool
        return PayloadPool(pool, self.payload_pools, Mean())

    def with_statistics(self, pool: Pool) -> Pool:
        """``pool`` for what is trained, and the weighted mean for running statistics."""
        return MeanOfStatistics(pool, self.statistics) if self.statistics and type(pool) is not Mean else pool

    def down(self, trained: Tree) -> Mapping[str, Tree]:
        """The payload of a round's messages: named trees that clients get beside the model. Default: {}, none.

        ``trained`` are the leaves of the global model that are trained and travel (not those of ``home``). What the
        server kept is in ``server_state``; ``payload_update`` gets the trees with floats in the run's dtype.
        """
        return {}

    def reply_form(self, model: Tree) -> Tree:
        """A tree that looks like a reply to ``train``: the model without what stays at home, the payload of ``up``."""
        return payload.join(self._shared(model), self.up(self._trained(model)))

    def message_form(self, model: Tree) -> Tree:
        """A tree that looks like a message to ``train``: the model without what stays at home, and ``down``."""
        return payload.join(self._shared(model), self.down(self._trained(model)))

    def _trained(self, model: Tree) -> Tree:
        """The leaves that are trained and travel."""
        rest = set(self.statistics)
        floats = (k for k, x in model.items() if x.is_floating_point() and k not in rest)
        return {k: model[k] for k in self.trainable or floats if k not in self.at_home}

    def _shared(self, model: Tree) -> Tree:
        """The leaves that travel: all but those that stay with the clients."""
        return {k: x for k, x in model.items() if k not in self.at_home} if self.at_home else model

    def payload_step(self, model: Tree, pooled: Pooled, server_round: int) -> Tree:
        """The new global model, for an algorithm with a payload. Default: ``server_step`` of the pooled model.

        ``model`` and ``pooled`` are copies that this function may write into.
        """
        return self.server_step(model, pooled.model, server_round)

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """The new global model. Default: ``model + server_lr * (pooled - model)``.

        ``model`` and ``pooled`` are copies that this function may write into.
        """
        return tree.lerp(model, pooled, self.server_lr)

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """The constructor's parameters that do nothing beside the other numbers, and why; setting one is an error."""
        return {}

    @property
    def scheduled(self) -> str:
        """The name of the setting by which a round depends on the total number of rounds; empty: none."""
        return ""

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Values of settings, by dotted name, that make the numbers wrong, and why; they are refused."""
        return {}

    def network_notes(self, loss: Loss, local: Local) -> Sequence[str]:
        """What a run must be told of this algorithm on this network, one sentence each; asked once, before the run."""
        return ()

    @property
    def least_samples(self) -> int:
        """Training samples that each client must have; a run with a smaller one is refused before it starts."""
        return 1

    @property
    def least_clients(self) -> int:
        """Clients that must train; a run with fewer is refused before it starts."""
        return 1

    def __getstate__(self) -> dict[str, object]:
        """What a checkpoint keeps: all attributes but the global model, which it keeps anyway."""
        return {
            k: v
            for k, v in vars(self).items()
            if k
            not in ("model", "population", "statistics", "trainable", "at_home", "unanswered", "validate", "validating")
        }

    def restore(self, kept: Mapping[str, object]) -> None:
        """Take over what a checkpoint kept (``__getstate__``)."""
        vars(self).update({self.renamed.get(name, name): value for name, value in kept.items()})

    def summary(self) -> None:
        """Flower's hook to print the strategy. The config file holds all of it, so nothing is printed."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages to a keyed sample of ``cohort`` clients.

        A straggler's message names the fraction of the work that it finishes; where partial work is dropped, it gets no
        message.
        """
        settings = self.round_settings(server_round, config)
        self.model, self.rounds = records.decode(arrays), int(settings.get("rounds", 0))
        ids = ids_of(grid.get_node_ids())
        self.population = len(everyone(grid))
        model = {"arrays": records.without(arrays, self.at_home), **self._payload(self.model)}
        chosen = choose(len(ids), self.cohort, self.seed, server_round)
        work = stragglers(chosen, self.seed, server_round, settings)
        dropped = set(work) if self.partial_work == "drop" else set()
        self.dropped = sorted(getattr(grid, "client_of", int)(ids[c]) for c in dropped)
        contents: dict[float | None, RecordDict] = {}  # one object for equal contents: the grid reads it once
        sent = []
        for c in chosen:
            if c not in dropped:
                share = work.get(c)
                if share not in contents:
                    own = {} if share is None else {"system.work": share}
                    contents[share] = RecordDict({**model, "config": records.config({**settings, **own})})
                sent.append((contents[share], ids[c]))
        return flower.requests(sent, MessageType.TRAIN)

    def _payload(self, model: Tree) -> dict[str, ArrayRecord]:
        """The records of the payload of a round's messages."""
        if type(self).down is Strategy.down:
            return {}
        return payload.encode(payload.join({}, self.down(tree.clone(self._trained(model)))))

    def sent_beside(self, arrays: ArrayRecord) -> dict[str, ArrayRecord]:
        """The payload, for an algorithm whose clients adapt with it (``adapt``)."""
        return {} if type(self).adapt is LocalRule.adapt else self._payload(records.decode(arrays))

    def round_settings(self, server_round: int, config: Mapping[str, object]) -> dict[str, Any]:
        """The settings in a round's messages: the run's (``config``), the algorithm's numbers, and the round."""
        own = {"seed": self.seed, "weighting": self.weighting}
        return {**dict(config.items()), **self.named(), **own, "server-round": server_round}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge partial pools (or single models) as they come, then take the server step."""
        received = Received()
        for reply in replies:
            self._receive(received, reply)
        if received.partial is None:
            return None, None
        return records.encode(self._stepped(self.model, received, server_round)), MetricRecord(received.metrics)

    def _receive(self, received: Received, reply: Message) -> None:
        """Take in one reply, whose arrays may be a block's partial pool."""
        received.partial = self._take(received.partial, reply)
        numbers = records.numbers(reply.content)
        received.count(numbers, self._weight(numbers), type(self).payload_step is not Strategy.payload_step)

    def _stepped(self, model: Tree, received: Received, server_round: int) -> Tree:
        """``model`` after the server's step; of the result nothing is written into later."""
        assert received.partial is not None
        pooled, beside = payload.split(self.reply_pool.finish(received.partial, self.reply_form(model)))
        statistics, shared = self._statistics(model, pooled), self._shared(model)
        if type(self).server_step is Strategy.server_step and type(self).payload_step is Strategy.payload_step:
            new = self.server_step(shared, pooled, server_round)
        else:  # an override may write into the models, which others read too, and into its result later
            statistics = tree.clone(statistics)
            every = Pooled(pooled, beside, received.clients)
            new = tree.clone(self.payload_step(tree.clone(shared), every, server_round))
        new = {**new, **statistics}
        if self.at_home:  # in the model's order; a leaf that the step left out, or added, is for the driver to refuse
            new |= {k: model[k] for k in model if k in self.at_home}
            new = {k: new[k] for k in dict.fromkeys([*model, *new]) if k in new}
        return new

    def _statistics(self, model: Tree, pooled: Tree) -> Tree:
        """The running statistics of the new model: the clients' mean, whatever step the server takes with weights."""
        self.unanswered = [k for k in self.statistics if k not in pooled and k not in self.at_home]
        means = {k: pooled[k] for k in self.statistics if k in pooled}
        return tree.add(means, model) if self.reply_kind == "update" else means

    def _take(self, partial: Tree | None, reply: Message) -> Tree | None:
        content = records.of(reply.content, ArrayRecord)
        if "pool" in content:
            block = records.decode(content["pool"])
            return block if partial is None else self.reply_pool.merge(partial, block)
        if not content and self._shared(self.model):  # without what travels, a reply has no arrays
            return partial
        single = payload.decode(payload.records_of(reply.content))
        weight = torch.tensor([self._weight(records.numbers(reply.content))], dtype=torch.float64)
        pool = self.reply_pool
        started = pool.start(single) if partial is None else partial
        return pool.add(started, {k: v[None] for k, v in single.items()}, weight)

    def validated(self, model: Tree) -> float:
        """The loss of ``model`` on the server's validation samples, for a server's step that ``needs_validation``."""
        if self.validate is None:
            what = f"{type(self).__name__} chooses by the loss on the server's validation samples, and has none"
            raise ConfigError(f"validation: {what}; give --validation 0.1, or set the attribute validate")
        return self.validate(model)

    def _weight(self, numbers: Mapping[str, Any]) -> float:
        """The weight of a client in the pool, by the numbers of its reply."""
        return float(numbers["num-examples"]) if self.weighting == "examples" else 1.0

    # Client half ----------------------------------------------------------------------------------------------------

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """Local training along ``gradient``; replies with the new model. See ``LocalRule.local_update``."""
        new, metrics = train(model, batches["train"], local, lambda m, batch: self.gradient(m, model, batch, loss))
        return new, state, metrics

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        """(gradient, loss (), new buffers) of one step at ``model``; ``anchor`` is the received global model."""
        return loss.step_gradient(model, batch)
