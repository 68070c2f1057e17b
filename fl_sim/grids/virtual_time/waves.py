"""Messages whose clients train late: all that wait at once, when a reply is wanted that nobody has computed.

When a client starts, its model and its duration are known, and its training can wait. A pull that needs a reply which
is not computed trains all clients that were sent a message and have not trained: a wave (``fl_sim.blocks.wave``).
Which these are follows from the order of pushes and pulls alone; so results do not depend on when a process ended.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.wave import plan_wave
from fl_sim.engines.results import BlockResult, ClientResult
from fl_sim.executors.base import Executor
from fl_sim.grids.messages import MessageReader, client_of, reply_to
from fl_sim.tree import Tree
from fl_sim.wire import flower, payload, records

OF_ANSWER = (
    *("position", "client", "examples", "steps", "weight", "metrics", "sets", "reply"),
    *("num_bytes", "num_bytes_raw", "reason"),
)
"""The fields of a client's result that a checkpoint keeps; its new state is among the states of the clients."""


@dataclass
class Waiting:
    """A message that was pushed, and whose reply was not pulled."""

    message: Message
    """Without its content once its client has trained, unless the start model is wanted later."""
    answer: ClientResult | None = None
    """The client's result; None: it has not trained."""
    block: int = 0
    """The number of its block."""


@dataclass
class Waves:
    """The messages under way in a run of an asynchronous strategy.

    Parameters
    ----------
    learner, executor, block_size
        As of the grid, which owns this object.
    states : MutableMapping[int, Tree]
        Client id -> state; gets the new states of those who have trained.
    reader : Callable
        Makes the reader of a wave's messages.
    on_result : Callable
        Called with each block's result.
    keeps_models : bool (default: False)
        Whether messages keep their model until the reply is pulled.
    """

    learner: Learner
    executor: Executor
    block_size: int
    states: MutableMapping[int, Tree]
    reader: Callable[[], MessageReader]
    on_result: Callable[[BlockResult], None]
    keeps_models: bool = False

    def __post_init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        """Message id -> message, in the order of pushes."""
        self._blocks = self._pushed = 0

    def push(self, messages: Iterable[Message]) -> list[str]:
        """Note messages whose clients have started; returns their ids."""
        numbers = []
        for message in messages:
            self._pushed += 1
            numbers.append(f"launch-{self._pushed:012d}")
            flower.set_message_id(message, numbers[-1])
            self.waiting[numbers[-1]] = Waiting(message)
        return numbers

    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """The replies to these messages, in this order; if one is not computed, all that wait are computed first."""
        if any(self.waiting[number].answer is None for number in numbers):
            self._train([waiting for waiting in self.waiting.values() if waiting.answer is None])
        return [self._reply(self.waiting.pop(number)) for number in numbers]

    def forget(self, number: str) -> None:
        """Drop a message whose reply will not be pulled."""
        self.waiting.pop(number, None)

    def _reply(self, waiting: Waiting) -> Message:
        assert waiting.answer is not None
        return reply_to(waiting.message, waiting.answer, block=waiting.block)

    # Training -------------------------------------------------------------------------------------------------------

    def _train(self, wave: Sequence[Waiting]) -> None:
        """Train all of ``wave``: a client that started twice trains again, with its new state, once all have."""
        while wave:
            firsts: dict[int, Waiting] = {}
            for waiting in wave:
                firsts.setdefault(client_of(waiting.message), waiting)
            self._at_once(list(firsts.values()))
            wave = [waiting for waiting in wave if waiting.answer is None]

    def _at_once(self, wave: Sequence[Waiting]) -> None:
        """Train clients, each of which occurs once, as blocks; each starts from the model of its message."""
        read, starts, models, orders = self.reader(), dict[tuple[int, ...], int](), list[Tree](), []
        for waiting in wave:
            arrays, settings = read(waiting.message)
            key = tuple(map(id, arrays.values()))
            if key not in starts:
                starts[key] = len(models)
                models.append(self.learner.loss.received(payload.decode(arrays)))
            orders.append((client_of(waiting.message), settings, starts[key]))
        plans = plan_wave(self.learner, orders, self.states, self.block_size, self._blocks)
        self._blocks += len(plans)
        for result in self.executor.run(plans, tree.stack(models), None):
            self.on_result(result)
            for answer in result.clients:
                self._answered(wave[answer.position], answer, result)

    def _answered(self, waiting: Waiting, answer: ClientResult, result: BlockResult) -> None:
        if answer.state:
            self.states[answer.client] = answer.state
        if len(result.clients) > 1:  # a part of the block's replies would keep all of them in memory
            answer.reply = tree.clone(answer.reply)
        waiting.answer, waiting.block = answer, result.plan.number
        if not self.keeps_models:
            waiting.message.content = RecordDict()

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The messages under way, as values that a checkpoint holds: what ``restore`` takes."""
        rows = []
        for number, waiting in self.waiting.items():
            answer = waiting.answer and {name: getattr(waiting.answer, name) for name in OF_ANSWER}
            node = waiting.message.metadata.dst_node_id
            rows.append([number, node, waiting.message.content, answer, waiting.block])
        return {"blocks": self._blocks, "pushed": self._pushed, "waiting": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the messages of a checkpoint."""
        self._blocks, self._pushed, self.waiting = int(state["blocks"]), int(state["pushed"]), {}
        for number, node, content, answer, block in state["waiting"]:
            message = Message(content, node, "train")
            flower.set_message_id(message, number)
            self.waiting[number] = Waiting(message, ClientResult(**answer) if answer else None, block)


def start_model(message: Message) -> Tree:
    """The model that a message carries, as a tree that must not be written to; {} where it was dropped."""
    arrays = records.of(message.content, ArrayRecord).get("arrays")
    return {} if arrays is None else records.decode(arrays)
