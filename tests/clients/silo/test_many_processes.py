"""A silo of several processes: the bits of one process, and what happens where one of them fails."""

import itertools
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from clients.silo import rank, silo_group
from clients.silo.collectives import Distributed, library, ring, server
from clients.silo.many_processes import ManyProcesses, balanced
from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import Silo
from experiments.config.recipe_files import make
from experiments.runs.plan import first_round_plans, sent
from experiments.runs.resume import ready
from experiments.runs.setup import Setup
from fl_sim import Batch, Loss, Task, from_arrays, rng, tree
from fl_sim.engines.results import BlockResult
from fl_sim.engines.run_block import run_plan
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg
from strategies.scaffold import Scaffold


def task() -> Task:
    """Clients of 1, 2, 5, 9 and 23 samples: some have fewer than there are ranks, or shards."""
    draw = torch.Generator().manual_seed(0)
    x, owners = torch.randn(40, 3, generator=draw), torch.arange(5).repeat_interleave(torch.tensor([1, 2, 5, 9, 23]))
    return from_arrays(x, (x.sum(1) > 0).long(), clients=owners, test_share=0.0)


def network() -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.25), nn.Linear(6, 2))


@dataclass
class Fails(FedAvg):
    """No paper: FedAvg, of which a rank fails: as often as there is no file of that number."""

    how: str = "dies"
    marks: str = ""
    times: int = 1

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        """The gradient; on the last rank, a failure before."""
        if dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1:
            self.fail()
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        if self.how == "nan":
            grads = {k: g * float("nan") for k, g in grads.items()}
        return grads, value, buffers

    def fail(self) -> None:
        """Fail in the way that ``how`` says, where it is time to."""
        for number in range(self.times):
            mark = Path(self.marks) / str(number)
            if not mark.exists():
                mark.touch()
                if self.how == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.how == "hangs":
                    time.sleep(600)
                raise ValueError("this rank does not want to")


@dataclass
class Jumps:
    """A clock on which a minute passes at each look, while the last rank hangs and all others wait for it."""

    silo: ManyProcesses
    mark: Path | None
    late: float = 0.0

    def __call__(self) -> float:
        """Seconds."""
        if self.mark is not None and self.mark.exists() and not self.silo.restarts:
            group = self.silo._group
            self.late += 61.0 * (group is not None and bool((group.beats[:-1, 1] == rank.WAITS).all()))
        return time.monotonic() + self.late


def world(**settings: Any) -> Setup:
    given: dict[str, Any] = {"task": task(), "model": network(), "dtype": "float64", "strategy": "scaffold"}
    given |= {"partition": "natural", "rounds": 1, "engine": "loop", "block_size": 5, "local.batch_size": 7}
    return ready(make(**{**given, **settings}))


def trained(setup: Setup, silo: Silo, clients: int = 5) -> BlockResult:
    """The first clients of a round, in a silo."""
    learner = in_silo(setup.learner, silo)
    [plan] = first_round_plans(setup)
    try:
        return run_plan(replace(plan, orders=plan.orders[-clients:]), sent(setup), learner, "loop", 0, None)
    finally:
        assert learner.silo is not None
        learner.silo.close()


def digests(result: BlockResult) -> list[str]:
    assert not any(client.reason for client in result.clients), result.clients[0].reason
    return [tree.digest({**client.reply, "loss": torch.tensor(client.metrics["loss"])}) for client in result.clients]


def test_the_bits_do_not_depend_on_the_number_of_processes_or_their_shares() -> None:
    setup = world()
    one = digests(trained(setup, Silo(1, 4)))
    silos = Silo(2, 4), Silo(3, 4), Silo(3, 4, wire="sockets"), Silo(4, 4), Silo(2, 4, shares="3,1", balance=True)
    for silo in silos:
        assert digests(trained(setup, silo)) == one, silo


@pytest.mark.parametrize("strategy", ["fedrep", "local-only"])
def test_leaves_that_stay_with_the_client_are_trained_by_all_ranks(strategy: str) -> None:
    """They are in no message, and part of the gradient that the ranks sum."""
    setup = world(strategy=strategy)
    assert digests(trained(setup, Silo(2, 4), 2)) == digests(trained(setup, Silo(1, 4), 2))


def test_a_group_of_one_with_one_shard_updates_running_statistics() -> None:
    setup = world(strategy="fedavg", model=nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)))
    alone, group = (trained(setup, Silo(1, 1, backend=backend), 2) for backend in ("auto", "gloo"))
    assert digests(group) == digests(alone)
    assert float(group.clients[0].reply["1.running_mean"].abs().sum()) > 0


@pytest.mark.parametrize("how", ["dies", "hangs", "raises"])
def test_a_client_whose_rank_fails_begins_again_with_the_same_bits(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = world(strategy=Fails(how=how, marks=str(tmp_path)))
    silo, told = ManyProcesses(Silo(2, 4, timeout=60)), list[dict[str, Any]]()
    monkeypatch.setattr(silo_group, "clock", Jumps(silo, tmp_path / "0" if how == "hangs" else None))
    silo.on_event = lambda kind, **facts: told.append({"event": kind, **facts})
    learner = replace(setup.learner, silo=silo)
    [plan] = first_round_plans(setup)
    try:
        again = run_plan(replace(plan, orders=plan.orders[:2]), sent(setup), learner, "loop", 0, None)
    finally:
        silo.close()
    assert digests(again) == digests(trained(setup, Silo(1, 4)))[:2]
    [event] = told
    assert (event["event"], event["rank"], silo.restarts) == ("silo_restarted", 1, 1)
    assert {"dies": "killed by signal 9", "hangs": "hangs: no step within 60 s", "raises": "does not want to"}[
        how
    ] in event["reason"]


def test_three_failures_and_nan_are_the_clients_own(tmp_path: Path) -> None:
    setup = world(strategy=Fails(how="raises", marks=str(tmp_path), times=3))
    client = trained(setup, Silo(2, 4), 1).clients[0]
    assert "failed 3 times; the last time rank 1 raised:" in client.reason and "does not want to" in client.reason
    nan = trained(world(strategy=Fails(how="nan", marks=str(tmp_path), times=0)), Silo(2, 4), 1).clients[0]
    assert "nan" in nan.reason.lower()


def test_no_rank_outlives_a_parent_that_is_killed() -> None:
    setup, (reading, writing) = world(), os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            silo = ManyProcesses(Silo(2, 4))
            group = silo._of(setup.loss)
            os.write(writing, b" ".join(str(rank.pid).encode() for rank in group.ranks) + b"\n")
            time.sleep(600)
        finally:
            os._exit(1)
    pids = [int(pid) for pid in os.read(reading, 100).split()]
    assert len(pids) == 2 and all(map(alive, pids))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie that waits for a new parent."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Collects(Scaffold):
    """No paper: replies with the differences of this project's sums from the library's, on tensors of many sizes."""

    reply_kind = "update"

    def local_update(self, model: Tree, state: Tree, batches: Any, loss: Loss, local: Any) -> Any:
        """The largest difference, in each leaf."""
        off, wire = 0.0, Distributed()
        for n in (0, 1, 2, 7, 30):
            x = torch.arange(n, dtype=torch.float64).sin() * (1 + wire.rank)
            sums = [x.clone() for _ in range(3)]
            for total, collective in zip(sums, (library, ring, server), strict=True):
                collective(total, wire)
            off = max([off, *(float((sums[0] - s).abs().max()) for s in sums[1:] if n)])
        return {k: torch.full_like(v, off) for k, v in model.items()}, state, {"loss": torch.tensor(off)}

    def payload_update(self, model: Tree, payload: Any, state: Tree, batches: Any, loss: Loss, local: Any) -> Any:
        """The same; the payload is left as it came."""
        reply, state, metrics = self.local_update(model, state, batches, loss, local)
        return reply, state, metrics, {"control": payload["control"]}


def test_ring_and_server_agree_with_the_library() -> None:
    setup = world()
    learner = in_silo(setup.learner, Silo(3, 4))
    [plan] = first_round_plans(setup)
    learner = replace(learner, rule=lambda kind, settings: Collects())
    try:
        client = run_plan(replace(plan, orders=plan.orders[:1]), sent(setup), learner, "loop", 0, None).clients[0]
    finally:
        assert learner.silo is not None
        learner.silo.close()
    assert not client.reason and 0 <= client.metrics["loss"] < 1e-14


passed = [0.0]
"""Seconds of a clock that moves where ``Slow`` moves it, and nowhere else."""


class Slow(nn.Module):
    """A layer that takes a second a sample, on the last rank two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x, later."""
        last = dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1
        if self.training:
            passed[0] += len(x) * (2.0 if last else 1.0)
        return x


def test_shards_move_to_the_faster_rank_and_no_bit_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two ranks is slowed by half: of eight shards the other takes six."""
    monkeypatch.setattr(rank, "clock", lambda: passed[0])
    setup = world(model=nn.Sequential(Slow(), network()), **{"local.batch_size": 23})
    found = {}
    for silo in (Silo(1, 8), Silo(2, 8, balance=True)):
        learner = in_silo(setup.learner, silo)
        [plan] = first_round_plans(setup)
        result = run_plan(replace(plan, orders=plan.orders[-2:]), sent(setup), learner, "loop", 0, None)
        found[silo.processes] = digests(result), learner.silo.summary() if learner.silo is not None else {}
        assert learner.silo is not None
        learner.silo.close()
    assert found[2][0] == found[1][0]
    assert found[2][1]["silo"]["shares"] == [6, 2]  # type: ignore[index]


def test_shards_go_to_the_rank_that_is_done_first() -> None:
    assert balanced([1.0, 1.0], 8) == [0, 4, 8] and balanced([1.0, 2.0], 9) == [0, 6, 9]
    assert balanced([1.0, 100.0, 1.0], 4) == [0, 2, 3, 4]


@pytest.mark.parametrize("paces", [(1.0, 2.0), (2.0, 1.0), (1.0, 1.5)])
def test_the_time_is_within_15_percent_of_the_ideal(paces: tuple[float, ...]) -> None:
    """At S = 8. Ideal: all ranks are done at once, after S / sum(1 / pace) seconds where a shard is a sample."""
    ideal = 8 / sum(1 / pace for pace in paces)
    assert slowest(paces, balanced(paces, 8)) <= 1.15 * ideal < slowest(paces, [0, 4, 8])


@pytest.mark.parametrize("paces", [(1.0, 2.0, 1.0), (3.0, 0.7, 1.1), (1.0, 9.0, 2.0, 1.0)])
def test_no_other_shares_are_done_earlier(paces: tuple[float, ...]) -> None:
    """All ways of giving each rank a shard or more are tried."""
    between = itertools.combinations(range(1, 8), len(paces) - 1)
    best = min(slowest(paces, [0, *edges, 8]) for edges in between)
    assert slowest(paces, balanced(paces, 8)) == best


def slowest(paces: Sequence[float], edges: Sequence[int]) -> float:
    """Seconds until all ranks are done, where a shard is a sample."""
    return max(pace * (b - a) for pace, (a, b) in zip(paces, itertools.pairwise(edges), strict=True))
