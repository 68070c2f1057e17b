"""Small federations whose numbers can be computed by hand, and a way to train them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from torch import Tensor, nn

from clients.app import make_app
from fl_sim import Callback, Partition, Run, SimulationGrid, from_arrays, rng, run_rounds, squared_error, tree
from fl_sim.blocks.learner import Learner
from fl_sim.engines.results import BlockResult, ClientResult
from fl_sim.executors.inline import Inline
from fl_sim.learning.loss import Batch, Loss
from fl_sim.rounds.central_evaluation import validation_loss
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of


class Targets(nn.Module):
    """A model whose output is its only parameter w (K,), whatever x is.

    With squared error l = mean_i (w_i - y_i)^2, dl/dw_i = (2 / K) (w_i - mean y_i).
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(k))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), -1)


@dataclass
class Trained(Callback):
    """The result of a training: the model, the rows of the log, each client's answer, and the state it ends with."""

    model: Tree = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    answers: list[ClientResult] = field(default_factory=list)
    answered: list[tuple[str, int, int]] = field(default_factory=list)
    """(message type, round, client) of each answer."""
    states: Mapping[int, Tree] = field(default_factory=dict)

    def on_run_end(self, run: Run) -> None:
        self.states = dict(run.grid.states)  # type: ignore[attr-defined]

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.answers += result.clients
        self.answered += [(result.plan.message_type, run.round, answer.client) for answer in result.clients]


@dataclass(frozen=True)
class Federation:
    """The samples of each client, and the loss of a model on them."""

    loss: Loss
    partition: Partition

    @property
    def learner(self) -> Learner:
        """The learner of its clients' app."""
        return make_app(self.loss, self.partition).learner

    def train(
        self,
        strategy: Any,
        settings: Mapping[str, Any],
        start: Tree | None = None,
        *,
        rounds: int = 1,
        unseen: int = 0,
        evaluate: Mapping[str, Any] | None = None,
        failures: str = "raise",
        **grid: Any,
    ) -> Trained:
        """Train with ``strategy``; ``settings`` are those of a message, ``evaluate`` those of personal evaluation."""
        app = make_app(self.loss, self.partition, {name_of(type(strategy)): type(strategy)})
        if getattr(strategy, "needs_validation", False) and strategy.validate is None:
            strategy.validate = validation_loss(self.loss, self.loss.task.test, Inline(app.learner))
        simulation, trained = SimulationGrid(app, len(self.partition), holdout_clients=unseen, **grid), Trained()
        config, personal = (
            ConfigRecord({"rounds": rounds, **settings}),
            ConfigRecord({"rounds": rounds, **(evaluate or {})}),
        )
        arrays = records.encode(tree.to(start or self.loss.initial(), self.loss.dtype))
        result = run_rounds(
            strategy,
            simulation,
            arrays,
            rounds,
            train_config=config,
            evaluate_config=personal,
            failures=failures,
            callbacks=[trained],
        )
        trained.model, trained.rows = records.decode(result.arrays), result.rows
        return trained


@pytest.fixture
def federation() -> Callable[..., Federation]:
    """``federation(module, [(x, y) of each client], dtype, held_out)``."""

    def make(
        module: nn.Module,
        clients: Sequence[tuple[Any, Any]],
        dtype: torch.dtype = torch.float64,
        held_out: float = 0.0,
        **task: Any,
    ) -> Federation:
        x, y = (np.concatenate([np.asarray(client[i]) for client in clients]) for i in (0, 1))
        ends = np.cumsum([len(client[1]) for client in clients])
        own_task = from_arrays(x, y, x_test=x[:1], y_test=y[:1], **task)
        return Federation(
            Loss(module, own_task, dtype), Partition.of(np.split(np.arange(ends[-1]), ends[:-1])).hold_out(held_out, 0)
        )

    return make


@pytest.fixture
def targets(federation: Callable[..., Federation]) -> Callable[..., Federation]:
    """``targets([y of each client])``: y is (n, K), or (n,) for K = 1.

    With K = 1 and lr 1/2 one step on all samples ends at their mean.
    """

    def make(clients: Sequence[Any], **options: Any) -> Federation:
        ys = [np.asarray(y, dtype=float).reshape(len(y), -1) for y in clients]
        return federation(
            Targets(ys[0].shape[1]), [(np.zeros((len(y), 1)), y) for y in ys], loss=squared_error, **options
        )

    return make


class Slope(nn.Module):
    """The output w x, for a number w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


@pytest.fixture
def quadratics(federation: Callable[..., Federation]) -> Callable[..., Federation]:
    """``quadratics([(curvature a, minimum m) of each client])``: losses a (w - m)^2 / 2 of a number w.

    Each client has one sample x = sqrt(a), y = m sqrt(a), and the loss is (w x - y)^2 / 2.
    """

    def make(clients: Sequence[tuple[float, float]], copies: Sequence[int] | None = None) -> Federation:
        counts = copies or [1] * len(clients)
        samples = [
            (np.full((n, 1), a**0.5), np.full((n, 1), m * a**0.5)) for n, (a, m) in zip(counts, clients, strict=True)
        ]
        return federation(Slope(), samples, loss=lambda outputs, batch: squared_error(outputs, batch) / 2)

    return make


@pytest.fixture
def lines(federation: Callable[..., Federation]) -> Federation:
    """Two clients of a loss (w.x - y)^2 / 2 of two weights: 4 samples x = (1, 1), y = 4, and 2 of x = (1, 0), y = 4.

    A client's gradient is x (w.x - y), its Hessian x x^T. A step of 1/4 on any of its samples multiplies its residual
    w.x - y by 1 - |x|^2 / 4, that is 1/2 for the first client and 3/4 for the second.
    """
    clients = [([[1.0, 1.0]] * 4, [[4.0]] * 4), ([[1.0, 0.0]] * 2, [[4.0]] * 2)]
    module = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(module.weight)
    return federation(module, clients, loss=lambda outputs, batch: squared_error(outputs, batch) / 2)


@pytest.fixture
def signs(federation: Callable[..., Federation]) -> Callable[[Sequence[int]], Federation]:
    """``signs([n of each client])``: half of the samples are x = 1 of class 0, half x = -1 of class 1.

    A network of a body b = 1 and a head of two classes, both without a bias.
    """

    def make(sizes: Sequence[int]) -> Federation:
        body, head = nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False)
        nn.init.ones_(body.weight)
        clients = [([[1.0], [-1.0]] * (n // 2), [0, 1] * (n // 2)) for n in sizes]
        return federation(nn.Sequential(body, head), clients, outputs=2)

    return make


@pytest.fixture
def smooth(federation: Callable[..., Federation]) -> Federation:
    """Five clients of 4 to 20 samples and a tanh network: differentiable to any order."""
    draw = np.random.default_rng(0)
    clients = [(draw.normal(size=(n, 4)), draw.integers(0, 3, n)) for n in (4, 8, 12, 16, 20)]
    with rng.keyed_globals(0):
        return federation(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), clients, outputs=3)


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """``batch_of(x, y, key)``: one step's samples."""

    def make(x: Any, y: Any, key: int = 0) -> Batch:
        return Batch({"x": torch.as_tensor(x, dtype=torch.float64), "y": torch.as_tensor(y)}, rng.words(key))

    return make
