"""SimulationGrid: Flower's ``Grid`` with virtual clients behind it.

Messages in, blocks through an engine, replies out. A ClientApp that exposes a ``learner`` runs in
blocks; any other ClientApp is called once a message. A strategy cannot tell this grid from real devices.

Legend: C clients.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.results import BlockResult
from fl_sim.executors.base import Executor
from fl_sim.executors.inline import Inline
from fl_sim.grids.messages import CLIENT_ERROR, arrays_of, check_settings, client_of, reply_to
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from fl_sim.wire.pool import Pool

Event = Callable[..., None]


class SimulationGrid(Grid):
    """Virtual clients behind Flower's seam.

    Parameters
    ----------
    client_app : ClientApp
        With the attribute ``learner`` (``clients.app.make_app``) its clients run in blocks; without, one message at a time.
    num_clients : int
        C: how many clients there are, ids 0..C-1.
    holdout_clients : int (default: 0)
        The last ids, never handed out for training; a strategy may ask ``holdout_node_ids`` to evaluate on them.
    engine, block_size, chunk : str, int, int
        Engine of a block, clients a block, clients run at once inside it (0: the whole block).
    executor : Executor (default: None)
        Who runs blocks; None: this process, with ``engine`` and ``chunk``.
    seed : int (default: 0)
        Keys the draws of messages that name no seed of their own.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        holdout_clients: int = 0,
        engine: str = "loop",
        block_size: int = 16,
        chunk: int = 0,
        executor: Executor | None = None,
        seed: int = 0,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        self._run = flower.identify()
        self.app, self.num_clients, self.holdout_clients = client_app, num_clients, holdout_clients
        self.learner: Learner | None = getattr(client_app, "learner", None)
        self.executor = executor or (Inline(self.learner, engine, chunk) if self.learner is not None else None)
        self.block_size, self.seed, self.chunk = block_size, seed, self.executor.chunk if self.executor else chunk
        self.pool: Pool | None = None
        """Set by run_rounds where the strategy itself pools: then a block's replies are reduced before they travel."""
        self.states: dict[int, Tree] = {}
        """Each client's state by id, committed when its block is answered."""
        self._on_event: Event = lambda kind, **facts: None
        self.on_block: Callable[[BlockResult], None] = lambda result: None
        self._app_states: dict[int, RecordDict] = {}
        self._asked: dict[tuple[str, int, int], int] = {}
        self._run_config = run_config or {}
        self._sent = 0
        self._mailbox: dict[str, Message] = {}
        self._model: tuple[ArrayRecord | None, Tree] = (None, {})

    @property
    def on_event(self) -> Event:
        """Told what is worth a line in the log, by the grid and by its executor."""
        return self._on_event

    @on_event.setter
    def on_event(self, event: Event) -> None:
        self._on_event = event
        if self.executor is not None:
            self.executor.on_event = event

    # Flower's Grid -----------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Take over a Run."""
        self._run = run

    @property
    def run(self) -> Any:
        """The run of this grid."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Sequence[int]:
        """Nodes that may train, ascending: a range, whatever their number."""
        return range(flower.FIRST_NODE, flower.FIRST_NODE + self.num_clients - self.holdout_clients)

    @property
    def holdout_node_ids(self) -> Sequence[int]:
        """Nodes that never train."""
        end = flower.FIRST_NODE + self.num_clients
        return range(end - self.holdout_clients, end)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Answer messages at once and keep the replies for ``pull_messages``."""
        pushed = list(messages)
        self._mailbox.update({reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(pushed)})
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come, each handed out once."""
        return [self._mailbox.pop(i) for i in message_ids if i in self._mailbox]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """One reply a message. Blocks answer in their fixed order while they are consumed, other apps in the order of messages."""
        sent = list(messages)
        for message in sent:
            self._sent += 1
            flower.set_message_id(message, f"{self._sent:012d}")
            if not 0 <= client_of(message) < self.num_clients:
                nodes = f"{flower.FIRST_NODE}..{flower.FIRST_NODE + self.num_clients - 1}"
                raise ValueError(f"message to node {message.metadata.dst_node_id}: this grid has nodes {nodes}")
        if self.learner is None or self.executor is None:
            return (self._call(message, draw) for message, draw in [(message, self._draw(message)) for message in sent])
        return self._answer_in_blocks(sent, self.learner, self.executor)

    def close(self) -> None:
        """Let workers go, where there are any; the next message would start them again."""
        if self.executor is not None:
            self.executor.close()

    # Blocks ------------------------------------------------------------------------------------------------------

    def _answer_in_blocks(self, messages: Sequence[Message], learner: Learner, executor: Executor) -> Iterator[Message]:
        """Replies block by block. The executor is called for each model at once; when it works is its own affair."""
        read = _Read(self)
        groups: dict[tuple[str, int], tuple[ArrayRecord, list[tuple[int, int, Settings]]]] = {}
        for position, message in enumerate(messages):
            arrays, settings = read(message)
            group = groups.setdefault((message.metadata.message_type, id(arrays)), (arrays, []))
            group[1].append((position, client_of(message), settings))
        answers = []
        for (message_type, _), (arrays, orders) in groups.items():
            plans = plan_blocks(learner, message_type, orders, self.states, self.block_size)
            pool = self.pool if message_type == "train" else None
            answers.append(executor.run(plans, self._decode(arrays), pool))
        return (
            reply for results in answers for result in results for reply in self._answer(result, messages, executor)
        )

    def _answer(self, result: BlockResult, messages: Sequence[Message], executor: Executor) -> Iterator[Message]:
        """One reply a client of a block; the first survivor's carries the partial pool."""
        number = result.plan.number
        for note in result.notes:
            self.on_event("fallback", block=number, note=note)
        if result.chunk != self.chunk:
            self.on_event("out_of_memory", block=number, engine=executor.engine, chunk=result.chunk, before=self.chunk)
            self.chunk = result.chunk
        self.on_block(result)
        survivors = [messages[answer.position].metadata.message_id for answer in result.clients if not answer.reason]
        pooled_in = survivors[0] if survivors and result.partial is not None else ""
        partial, covered = result.partial, survivors
        for answer in result.clients:
            if answer.state:
                self.states[answer.client] = answer.state
            yield reply_to(messages[answer.position], answer, partial, pooled_in, covered, number)
            if not answer.reason:
                partial, covered = None, []

    def settings(self, message: Message) -> Settings:
        """A message's ConfigRecords as one mapping, with this grid's seed where it names none."""
        said = records.merged(records.of(message.content, ConfigRecord).values())
        return {"seed": self.seed, **{k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}}

    def _decode(self, record: ArrayRecord) -> Tree:
        if self._model[0] is not record and self.learner is not None:
            loss, model = self.learner.loss, records.shared(record)
            for (
                k,
                own,
            ) in loss.training.state_dict().items():  # Flower's strategies average counters too: back to whole numbers
                if not own.is_floating_point() and k in model:
                    model[k] = (model[k].round() if model[k].is_floating_point() else model[k]).to(own.dtype)
            self._model = (
                record,
                tree.to(model, loss.dtype, loss.device, copy=True),
            )  # a rule that writes into it spoils no other's
        return self._model[1]

    # Any other ClientApp -----------------------------------------------------------------------------------------

    def _draw(self, message: Message) -> int:
        """The key of an app's draws: its round if it names one, and how many messages of this type its client had in it."""
        server_round = self.settings(message).get("server-round")
        known = server_round if isinstance(server_round, int) else 0
        asked = (message.metadata.message_type, known, client_of(message))
        count = self._asked[asked] = self._asked.get(asked, -1) + 1
        return rng.key(self.seed, *asked, count)

    def _call(self, message: Message, draw: int) -> Message:
        """One message to an ordinary ClientApp. Its state is kept only if it answers."""
        client, node = client_of(message), message.metadata.dst_node_id
        config = {"partition-id": client, "num-partitions": self.num_clients}
        context = flower.context(node, config, self._app_states.get(client, RecordDict()), self._run_config)
        try:
            with rng.keyed_globals(draw):
                reply: Any = self.app(flower.delivered(message), context)
        except (Exception, SystemExit):
            return Message(Error(CLIENT_ERROR, traceback.format_exc()), reply_to=message)
        if not isinstance(reply, Message):
            return Message(
                Error(CLIENT_ERROR, f"the ClientApp returned {type(reply).__name__}, not a Message"), reply_to=message
            )
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            reason = "the ClientApp's Message is no reply to the one that it got; make it with Message(..., reply_to=message)"
            return Message(Error(CLIENT_ERROR, reason), reply_to=message)
        self._app_states[client] = flower.isolated(context.state)
        if reply.has_content():
            reply.content = flower.isolated(reply.content)
        return reply


class _Read:
    """(model, settings) of messages, the same objects for those that share their records: checked and read once."""

    def __init__(self, grid: SimulationGrid) -> None:
        self.grid = grid
        self.contents: dict[int, tuple[ArrayRecord, Settings]] = {}
        self.said: dict[tuple[int, ...], Settings] = {}

    def __call__(self, message: Message) -> tuple[ArrayRecord, Settings]:
        content = message.content
        known = self.contents.get(id(content))
        if known is None:
            records_of = tuple(map(id, records.of(content, ConfigRecord).values()))
            if records_of not in self.said:
                self.said[records_of] = self.grid.settings(message)
                check_settings(self.said[records_of])
            known = self.contents[id(content)] = arrays_of(message), self.said[records_of]
        return known
