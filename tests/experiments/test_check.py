"""``python -m experiments.check``: each check detects the fault that it is made for, and the command reports it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from flwr.app import Message, MetricRecord

from experiments import check
from experiments.check import strategy_checks
from experiments.check.__main__ import main
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.base.strategy import Strategy
from strategies.pools.mean import Mean


class Remembers(Strategy):
    """Two runs differ: the class counts its server steps."""

    steps: ClassVar[int] = 0

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        Remembers.steps += 1
        return {k: v + 1e-6 * Remembers.steps for k, v in pooled.items()}


class Explodes(Strategy):
    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return {k: v / 0.0 for k, v in pooled.items()}


class Stands(Strategy):
    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return model


class Unpicklable(Strategy):
    def __init__(self) -> None:
        self.rule = lambda x: x


class CountsReplies(Strategy):
    """How far it goes depends on how many replies came: on blocks, that is, not on clients."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.server_lr = 1 / sum(bool(reply.content.array_records) for reply in kept)
        return super().aggregate_train(server_round, kept)


class LastWins(Strategy):
    """The last block that comes is the new model."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = [reply for reply in replies if reply.content.array_records]
        return super().aggregate_train(server_round, kept[-1:])


@dataclass
class TupleParameter(Strategy):
    betas: tuple[Any, ...] = (0.9, (1, 2))


class Forgets(Strategy):
    def __init__(self, mu: float = 0.1) -> None:
        self.other = mu


class LooksAtNumbers(Strategy):
    """Branches on a value: vmap cannot."""

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        return (grads if float(value) > 1 else {k: g * 0.5 for k, g in grads.items()}), value, buffers


class IgnoresPadding(Strategy):
    """Takes samples for real that only fill a block."""

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        return super().gradient(model, anchor, replace(batch, mask=None), loss)


class WritesInPlace(Strategy):
    """Spoils the global model for the clients after it."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        done = super().local_update(model, state, batches, loss, local_)
        model["0.bias"].add_(1e-3)
        return done


class MeanOfMeans(Mean):
    """Not associative: merging takes the middle of two means."""

    def merge(self, a: Tree, b: Tree) -> Tree:
        return {k: (x + b[k]) / 2 for k, x in a.items()}


class OfMeans(Strategy):
    @property
    def pool(self) -> Pool:
        return MeanOfMeans()


class HidesPersonal(Strategy):
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        list(replies)
        return None


BROKEN: list[tuple[type[Strategy], Callable[[Any], None], str]] = [
    (Explodes, strategy_checks.check_model_stays_finite, "NaN or infinity"),
    (Stands, strategy_checks.check_model_stays_finite, "did not change the model"),
    (Remembers, strategy_checks.check_same_digest_twice, "two runs with one seed differ"),
    (Unpicklable, strategy_checks.check_pickles, "pickle"),
    (CountsReplies, strategy_checks.check_block_size_does_not_matter, "block_size 1 against 4"),
    (CountsReplies, strategy_checks.check_pooling_place_does_not_matter, "one reply a client"),
    (LastWins, strategy_checks.check_order_of_replies_does_not_matter, "replies reversed"),
    (TupleParameter, strategy_checks.check_parameters_travel, "do not fit into a message"),
    (Forgets, strategy_checks.check_parameters_travel, "no attribute 'mu'"),
    (LooksAtNumbers, strategy_checks.check_loop_and_vmap_agree, "vmap cannot run local_update"),
    (IgnoresPadding, strategy_checks.check_loop_and_vmap_agree, "vmap against loop"),
    (IgnoresPadding, strategy_checks.check_chunk_does_not_matter, "chunk 3 against loop"),
    (WritesInPlace, strategy_checks.check_local_update_is_pure, "changes the global model in place"),
    (OfMeans, strategy_checks.check_pool_is_associative, "pool: "),
    (Explodes, strategy_checks.check_app_answers_as_the_grid, ""),
    (HidesPersonal, strategy_checks.check_personal_evaluation, "personal_clients = None"),
]


@pytest.mark.parametrize("cls, broken, why", BROKEN, ids=lambda x: getattr(x, "__name__", "").removeprefix("check_"))
def test_each_check_detects_its_fault(cls: type[Strategy], broken: Callable[[Any], None], why: str) -> None:
    [target] = check.targets_of("strategy", cls.__name__, cls)
    result = check.run_check(target, broken)
    if cls is Explodes and broken is strategy_checks.check_app_answers_as_the_grid:
        assert result.why == ""  # the server's fault is none of the client's half
    else:
        assert why in result.why and "\n" not in result.line() and result.line().startswith("FAILED strategy")


def test_every_check_of_strategies_has_a_fault_that_it_detects() -> None:
    never = {
        strategy_checks.check_app_answers_as_the_grid
    }  # both halves come from one class here; a device with other code cannot be faked
    assert {broken for _, broken, _ in BROKEN} == set(strategy_checks.CHECKS) and never <= set(strategy_checks.CHECKS)


def test_variants_come_from_literal_parameters_one_at_a_time() -> None:
    def component(a: Literal["x", "y", "z"] = "x", b: Literal[1, 2] = 2, c: float = 0.5) -> None: ...

    assert check.variants(component) == [{}, {"a": "y"}, {"a": "z"}, {"b": 1}]


GOOD = '''
"""A partition, a model and a task of a user's own."""
import numpy as np
from torch import nn
from fl_sim import Partition, Task, from_arrays, rng
from fl_sim.registry import offer
from strategies.fedavg import FedAvg  # imported, not defined here: not checked

@offer("partition")
def thirds(task: Task, clients: int, seed: int) -> Partition:
    return Partition.of(np.array_split(rng.permutation(rng.key(seed, "thirds"), task.num_train), clients))

@offer("model")
def tiny(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs))

@offer("task", name="two-points")
def two_points() -> Task:
    return from_arrays(np.array([[0.0], [1.0]] * 4), np.array([0, 1] * 4))
'''
BAD = '''
from dataclasses import dataclass
from typing import Literal
from strategies.base.strategy import Strategy

@dataclass
class Half(Strategy):
    """Fine as it is; raises in its other way."""
    way: Literal["good", "bad"] = "good"

    def server_step(self, model, pooled, server_round):
        assert self.way == "good"
        return pooled
'''


def test_a_good_file_exits_0_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_parts.py").write_text(GOOD)
    path = list(sys.path)
    assert main([str(tmp_path / "my_parts.py")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "12 of 12 checks hold" and all(line.startswith("ok ") for line in lines[:-1])
    assert {line.split(":")[0].removeprefix("ok     ") for line in lines[:-1]} == {
        "partition thirds",
        "model tiny",
        "task two-points",
    }
    assert "my_parts" not in sys.modules and sys.path == path


def test_a_bad_file_exits_1_and_says_what_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_algorithm.py").write_text(BAD)
    assert main([str(tmp_path / "my_algorithm.py"), "--json"]) == 1
    done = json.loads(capsys.readouterr().out)
    assert done["status"] == "failed" and done["failed"] == sum(not row["ok"] for row in done["results"]) > 0
    by_name = {name: [row for row in done["results"] if row["name"] == name] for name in ("Half", "Half(way='bad')")}
    assert len(by_name["Half"]) == len(by_name["Half(way='bad')"]) == len(check.CHECKS)
    assert all(row["ok"] for row in by_name["Half"])
    bad = {row["check"] for row in by_name["Half(way='bad')"] if not row["ok"]}
    assert {"model stays finite", "loop and vmap agree"} <= bad and "parameters travel" not in bad


def test_flowers_own_kind_of_strategy_is_checked_as_a_server_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.py").write_text("from flwr.serverapp.strategy import FedAdam\nclass Mine(FedAdam):\n    pass\n")
    assert main([str(tmp_path / "theirs.py")]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{len(strategy_checks.FLOWER_CHECKS)} of {len(strategy_checks.FLOWER_CHECKS)} checks hold"
    )


@pytest.mark.parametrize(
    "text, words, says",
    [
        (None, ["nowhere.py"], "no such file"),
        (None, [], "python -m experiments.check FILE"),
        (None, ["a.py", "b.py"], "python -m experiments.check FILE"),
        (None, ["--loud"], "--loud"),
        ("x = 1\n", ["FILE"], "offers nothing to check"),
        ("from strategies.fedavg import FedAvg\n", ["FILE"], "offers nothing to check"),
        ("import no_such_package\n", ["FILE"], "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:\n", ["FILE"], "SyntaxError"),
        ("raise SystemExit(3)\n", ["FILE"], "SystemExit: 3"),
    ],
)
def test_what_cannot_be_checked_exits_2_in_one_line(
    text: str | None, words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.py"
    if text is not None:
        file.write_text(text)
    assert main([str(file) if word == "FILE" else word for word in words]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert "given" not in sys.modules


def test_the_command_runs_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("SHARE = 3\n")
    (tmp_path / "parts.py").write_text(
        GOOD.replace("import numpy as np\n", "import numpy as np\nfrom beside import SHARE\n", 1)
    )
    root = Path(check.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.check", "parts.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("12 of 12 checks hold\n")
