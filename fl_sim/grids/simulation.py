"""SimulationGrid: Flower's ``Grid`` with virtual clients behind it.

Messages come in, blocks run on an executor, replies go out. A ClientApp that exposes a ``learner`` runs in blocks; any
other ClientApp is called once a message. To a strategy this grid looks the same as one of real devices.

Legend: C clients.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.results import BlockResult
from fl_sim.executors.base import Executor
from fl_sim.executors.inline import Inline
from fl_sim.grids import no_answer
from fl_sim.grids.attackers import Attackers
from fl_sim.grids.base import Begin, ClientGrid, End, OnEvent
from fl_sim.grids.exchange import Failures
from fl_sim.grids.messages import Arrays, client_of, grouped, reply_to, settings_of
from fl_sim.grids.monitored import MonitoredGrid
from fl_sim.grids.plain_app import PlainApp
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.grids.virtual_time.timed_round import Facts, close_round
from fl_sim.grids.virtual_time.waves import Waves
from fl_sim.population.devices import SECOND
from fl_sim.tree import Tree
from fl_sim.wire import flower, payload


class SimulationGrid(ClientGrid):
    """Virtual clients behind Flower's ``Grid``.

    Parameters
    ----------
    client_app : ClientApp
        With the attribute ``learner`` (``clients.app.make_app``) its clients run in blocks; without, one message at a
        time.
    num_clients : int
        C: how many clients there are, with ids 0..C-1.
    holdout_clients : int (default: 0)
        Clients with the last ids, which never train; a strategy may evaluate on them (``holdout_node_ids``).
    validation_clients : int (default: 0)
        Clients with the ids before these, which never train either (``validation_node_ids``): choices may read them.
    engine, block_size, chunk : str, int, int
        Engine of a block, clients a block, clients of a block that run at once (0: the whole block).
    executor : Executor (default: None)
        Who runs blocks; None: this process, with ``engine`` and ``chunk``.
    seed : int (default: 0)
        Keys the draws of messages that name no seed of their own.
    run_config : dict (default: None)
        The run config in the context of an ordinary ClientApp.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        holdout_clients: int = 0,
        validation_clients: int = 0,
        engine: str = "loop",
        block_size: int = 16,
        chunk: int = 0,
        executor: Executor | None = None,
        seed: int = 0,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._run = flower.identify()
        self.app, self.num_clients = client_app, num_clients
        self.holdout_clients, self.validation_clients = holdout_clients, validation_clients
        self.learner: Learner | None = getattr(client_app, "learner", None)
        self.own_pools, self.loss = self.learner is not None, self.learner.loss if self.learner is not None else None
        self.trainable = self.learner.loss.trainable if self.learner is not None else ()
        self.statistics = self.learner.loss.buffers if self.learner is not None else ()
        self.executor = executor or (Inline(self.learner, engine, chunk) if self.learner is not None else None)
        self.block_size, self.seed, self.chunk = block_size, seed, self.executor.chunk if self.executor else chunk
        self._plain_app = PlainApp(client_app, num_clients, seed, run_config or {})
        self.attackers: Attackers | None = None
        """Malicious clients of rounds of training; None: there are none."""
        self.time: VirtualTime | None = None
        """The clock of virtual time, where clients have devices."""
        self.waves: Waves | None = None
        """The messages under way, in a run of an asynchronous strategy; None: replies come at once."""
        self._there: Sequence[int] | None = None
        self._working: dict[tuple[int, int], Sequence[int]] = {}
        self._model: tuple[Arrays, Tree] = ({}, {})

    @property
    def on_event(self) -> OnEvent:
        """Records an event of the grid or of its executor in the log."""
        return self._on_event

    @on_event.setter
    def on_event(self, event: OnEvent) -> None:
        self._on_event = event
        if self.executor is not None:
            self.executor.on_event = event

    @property
    def runs_in_process(self) -> int:  # type: ignore[override]
        """How many runs share this process's time."""
        return self.executor.runs if self.executor is not None else 1

    def worker_summary(self) -> Mapping[str, object]:
        """Facts about the executor's workers."""
        return self.executor.summary() if self.executor is not None else {}

    def client_of(self, node_id: int) -> int:
        """The client id of a node."""
        return node_id - flower.FIRST_NODE

    def for_strategy(self, failures: Failures, begin: Begin, end: End) -> Grid:
        """This grid, with the exchanges of the strategy's own hooks counted too."""
        return MonitoredGrid(self, failures, begin, end)

    def close(self) -> None:
        """Shut the executor's workers down, which the next message would start again, and close files of states."""
        self.states.close()
        if self.executor is not None:
            self.executor.close()

    # Asynchronous runs ----------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages, and return their ids. In an asynchronous run clients start, and train when a reply is pulled.

        Otherwise the exchange takes place at once.
        """
        return super().push_messages(messages) if self.waves is None else self.waves.push(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each once; in an asynchronous run in the order of ``message_ids``."""
        return super().pull_messages(message_ids) if self.waves is None else self.waves.pull(list(message_ids))

    # Flower's Grid --------------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Set Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's description of the run."""
        return self._run

    def get_node_ids(self) -> Sequence[int]:
        """Nodes of clients that may train, ascending: a range, whatever their number, unless some own no sample.

        While a round chooses its clients, those whose devices are not there are left out.
        """
        return self.training_nodes if self._there is None else self._there

    @property
    def training_nodes(self) -> Sequence[int]:
        """Nodes of all clients that may train, there or not."""
        return self._nodes(0, self.num_clients - self.holdout_clients - self.validation_clients)

    def begin_round(self) -> None:
        """Let virtual time go on until enough devices are there."""
        if self.time is None or self.learner is None:
            return
        self.time.columns = {}
        nodes = self.training_nodes
        there = self.time.there([self.client_of(node) for node in nodes]) if not self.time.devices.always else None
        self._there = None if there is None else tuple(nodes[i] for i in there)

    def round_columns(self) -> dict[str, object]:
        """The columns of virtual time."""
        self._there = None
        return {} if self.time is None else {"virtual_time": self.time.now / SECOND, **self.time.columns}

    def resumed(self, row: Mapping[str, object]) -> None:
        """Go on at the virtual time of the logged round; without columns where that has none."""
        if self.time is not None and not self.time.resumed(row):
            self.time = None

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """Nodes of clients that never train, and that no choice reads."""
        return self._nodes(self.num_clients - self.holdout_clients, self.num_clients)

    @property
    def validation_node_ids(self) -> Sequence[int]:
        """Nodes of the ``validation_clients`` before these, which never train either."""
        end = self.num_clients - self.holdout_clients
        return self._nodes(end - self.validation_clients, end)

    def _nodes(self, first: int, end: int) -> Sequence[int]:
        """Nodes of the clients first..end-1 that own samples."""
        idle = () if self.learner is None else self.learner.partition.idle
        if not len(idle) or self.learner is None:
            return range(flower.FIRST_NODE + first, flower.FIRST_NODE + end)
        if (first, end) not in self._working:
            working = self.learner.partition.working(first, end)
            self._working[first, end] = tuple(flower.FIRST_NODE + c for c in working)
        return self._working[first, end]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """One reply a message, each computed when it is consumed.

        Blocks answer in their fixed order, and need no time that ``timeout`` could end. An app without a ``learner``
        answers in the order of the messages; ``timeout`` is the wall time of each client's call. What stands for a
        reply that does not come is an error of ``no_answer``; with a ``learner``, a message to a node that does not
        exist raises ValueError.
        """
        sent = list(messages)
        for message in sent:
            self._number(message)
            if self.learner is not None and not 0 <= client_of(message) < self.num_clients:
                nodes = f"{flower.FIRST_NODE}..{flower.FIRST_NODE + self.num_clients - 1}"
                raise ValueError(f"message to node {message.metadata.dst_node_id}: this grid has nodes {nodes}")
        if self.learner is None or self.executor is None:
            app = self._plain_app
            return (app(message, draw, timeout) for message, draw in [(message, app.draw(message)) for message in sent])
        return self._answer_in_blocks(sent, self.learner, self.executor)

    # Blocks ---------------------------------------------------------------------------------------------------------

    def _answer_in_blocks(self, messages: Sequence[Message], learner: Learner, executor: Executor) -> Iterator[Message]:
        """Replies block by block.

        The executor gets all blocks of a model at once and decides itself when it runs them.
        """
        groups, unused, facts = grouped(messages, self.settings), dict[int, str](), Facts()
        if self.time is not None and any(kind == "train" for kind, *_ in groups):
            self._there = None
            unused, facts = close_round(
                self.time, groups, learner, lambda arrays: self._received(arrays, learner), self.sent.num_bytes
            )
        training = (client for key, (_, orders) in groups.items() if key[0] == "train" for _, client, _ in orders)
        malicious = frozenset() if self.attackers is None else self.attackers.among(training)
        answers, models, first = list[Iterator[BlockResult]](), list[Tree](), 0
        for (message_type, *_), (arrays, orders) in groups.items():
            attackers = self.attackers if message_type == "train" else None
            cut = plan_blocks if attackers is None else partial(attackers.plans, malicious)
            plans = cut(learner, str(message_type), orders, self.states, self.block_size, first)
            first += len(plans)
            pool = self.pool if message_type == "train" and not (attackers and attackers.attack.colludes) else None
            models.append(self._received(arrays, learner))
            answers.append(executor.run(plans, models[-1], pool))
        if self.attackers is not None and malicious and self.attackers.attack.colludes:
            answers = [self.attackers.colluded(list(zip(models, answers, strict=True)), learner)]
        replies = (
            reply for results in answers for result in results for reply in self._answer(result, messages, facts)
        )
        left_out = (no_answer.of(messages[i], no_answer.UNUSED, why, facts.get(i)) for i, why in unused.items())
        return itertools.chain(left_out, replies)

    def _answer(self, result: BlockResult, messages: Sequence[Message], facts: Facts) -> Iterator[Message]:
        """One reply for each client of a block; that of the first surviving client carries the partial pool.

        ``facts``: by position, what virtual time says of a client.
        """
        number = result.plan.number
        self.told(result)
        survivors = [messages[answer.position].metadata.message_id for answer in result.clients if not answer.reason]
        pooled_in = survivors[0] if survivors and result.partial is not None else ""
        pool, covered = result.partial, survivors
        for answer in result.clients:
            if answer.state:
                self.states[answer.client] = answer.state
            more = {**facts.get(answer.position, {}), **({"attacked": True} if result.plan.attack is not None else {})}
            yield reply_to(messages[answer.position], answer, pool, pooled_in, covered, number, more)
            if not answer.reason:
                pool, covered = None, []

    def told(self, result: BlockResult) -> None:
        """Record what happened in a block, and call ``on_block``."""
        number = result.plan.number
        for note in result.notes:
            self.on_event("fallback", block=number, note=note)
        if result.chunk != self.chunk:
            engine = "" if self.executor is None else self.executor.engine
            self.on_event("out_of_memory", block=number, engine=engine, chunk=result.chunk, before=self.chunk)
            self.chunk = self.reduced_chunk = result.chunk
        self.bits_changed = self.bits_changed or result.bits_changed
        self.on_block(result)

    def settings(self, message: Message) -> Settings:
        """A message's ConfigRecords as one mapping, with this grid's seed where it names none."""
        return settings_of(message, self.seed)

    def _received(self, arrays: Arrays, learner: Learner) -> Tree:
        """Model and payload as clients get them; once for all messages that share their records."""
        if not self._model[0] or list(map(id, self._model[0].values())) != list(map(id, arrays.values())):
            self._model = (arrays, learner.loss.received(payload.decode(arrays)))
        return self._model[1]
