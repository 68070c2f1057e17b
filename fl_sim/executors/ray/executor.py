"""Blocks on Ray's workers: processes of this machine or of a cluster, each running loop or vmap. No paper.

A run's samples and loss go to a worker once, through the object store: all workers of a machine read the same memory. The
global model goes once a round; partial pools and numbers come back. Which worker takes which block is the business of
``fl_sim.executors.ray.dispatch``; that a worker died costs time, never bits.
"""

import importlib.util
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.evaluate import BLOCK, means
from fl_sim.engines.results import BlockResult
from fl_sim.executors.base import Executor
from fl_sim.executors.ray.cluster import room
from fl_sim.executors.ray.dispatch import Dispatch, Work
from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.serialize import pack, unpack
from fl_sim.executors.ray.team import Crew, Hand, Lesson, crew_for, dismiss
from fl_sim.executors.ray.worker import Manner
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

__all__ = ["RayExecutor", "dismiss", "room"]

GIBIBYTE = 2**30
GROUPS = 4
"""Pieces a worker that an evaluation is cut into, whole blocks each."""
_names = itertools.count()


@dataclass
class _Shipped:
    """What lies in the object store for one run."""

    learner: Any = None
    data: list[tuple[str, Tree, Any]] = field(default_factory=list)
    """(key, samples, reference)."""


class RayExecutor(Executor):
    """Runs blocks on Ray's workers, which start with the first block and stay for the next run of this process.

    Parameters
    ----------
    learner : Learner
        On the CPU or on a GPU; workers have their own copy of the model, and on a GPU of the samples.
    engine, chunk : str, int
        Engine inside a worker, and clients of a block at once there (0: all).
    settings : Ray
        How many workers, what each reserves, where.
    threads : int
        torch's threads inside a worker.

    Raises ValueError where Ray is not installed.
    """

    def __init__(self, learner: Learner, engine: str, chunk: int, settings: Ray, threads: int) -> None:
        try:
            there = importlib.util.find_spec("ray") is not None
        except ValueError:  # somebody took it out of sys.modules
            there = False
        if not there:
            raise ValueError("engine = 'ray': Ray is not installed; pip install ray, or use --engine loop")
        self.learner, self.engine, self.chunk, self.settings, self.threads = learner, engine, chunk, settings, threads
        self.name, self._models = str(next(_names)), itertools.count()
        self._crew: Crew | None = None
        self._dispatch: Dispatch | None = None
        self._shipped = _Shipped()
        self._lesson: Lesson
        self._count = settings.num_workers
        self._live: set[str] = set()
        """Keys of the models that are trained or evaluated now."""
        self._workers: dict[int, dict[str, Any]] = {}
        """The workers that took part, with their facts."""

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Results in the order of ``plans``, at most twice the workers' blocks begun and not handed on. Begins when first asked."""
        if not plans:
            return
        crew, dispatch = self._start(len(plans))
        key, reference = self._ship_model(crew, (model, pool))
        works = [self._block_work(plan, key, reference) for plan in plans]
        try:
            with closing(dispatch.run(plans[0].message_type, works)) as parcels:
                for plan, parcel in zip(plans, parcels, strict=True):
                    result: BlockResult = unpack(parcel, device="cpu")
                    result.plan = plan
                    self.chunk = result.chunk = min(filter(None, (self.chunk, result.chunk)), default=0)
                    yield result
        finally:
            self._live.discard(key)

    def evaluate(self, model: Tree, data: Tree) -> dict[str, float]:
        """Block by block on all workers, summed in order."""
        total = len(data["y"]) if data else 0
        if not total:
            return {}
        starts = range(0, total, BLOCK)
        crew, dispatch = self._start(len(starts))
        key, reference = self._ship_model(crew, (model, None))
        samples = self._ship_data(crew, data)
        size = math.ceil(len(starts) / (GROUPS * crew.count))
        groups = [starts[i : i + size] for i in range(0, len(starts), size)]
        works = [
            Work(
                partial(self._send_evaluation, key, reference, samples, group),
                len(group),
                f"central evaluation from sample {group[0]}",
            )
            for group in groups
        ]
        try:
            return means([sums for several in dispatch.run("central evaluation", works) for sums in several], total)
        finally:
            self._live.discard(key)

    def summary(self) -> dict[str, Any]:
        """``num_workers`` that took part, on how many ``nodes``; their ``idle_share``; blocks handed out again, workers lost."""
        facts, done = list(self._workers.values()), self._dispatch
        return {
            "num_workers": self._count,
            "nodes": len({fact["node"] for fact in facts}),
            "kinds": sorted({fact["kind"] for fact in facts}),
            "idle_share": round(done.idle_share, 4) if done is not None else None,
            "retries": done.retries if done is not None else 0,
            "restarts": done.restarts if done is not None else 0,
        }

    def close(self) -> None:
        """Workers forget this run, and wait for the next; ``dismiss`` ends them, at the latest at the end of the process."""
        if self._crew is not None:
            self._crew.forget(self.name)
        self._crew, self._shipped = None, _Shipped()

    # What goes to workers ----------------------------------------------------------------------------------------

    def _start(self, pieces: int) -> tuple[Crew, Dispatch]:
        """Workers, starting or ready, and who hands work to them."""
        gpus = self._gpus()
        settings = replace(self.settings, num_gpus=gpus)
        count = self.settings.num_workers or min(room(settings), pieces)
        self._count = count = max(count, self._count)
        task = self.learner.loss.task
        size = tree.num_bytes(self.learner.data) + tree.num_bytes(task.test)
        crew = crew_for(settings, count, 2 * size + GIBIBYTE)
        if crew is not self._crew or self._dispatch is None:
            self._crew, self._shipped = crew, _Shipped()
            old, self._dispatch = self._dispatch, Dispatch(crew, lambda kind, **facts: self.on_event(kind, **facts))
            if old is not None:
                self._dispatch.retries, self._dispatch.restarts = old.retries, old.restarts
        self._lesson = f"{self.name}/learner", Manner(self.threads), self._ship_learner(crew)
        crew.teach(self._lesson)
        return crew, self._dispatch

    def _gpus(self) -> float:
        """GPUs a worker: as set; where nothing is, a whole one, or an equal share where workers are more than GPUs."""
        if self.settings.num_gpus or self.learner.loss.device.type != "cuda":
            return self.settings.num_gpus
        gpus = max(torch.cuda.device_count(), 1)
        return 1 / math.ceil(max(self.settings.num_workers, 1) / gpus)

    def _ship_model(self, crew: Crew, thing: tuple[Tree, Pool | None]) -> tuple[str, Any]:
        key = f"{self.name}/model/{next(self._models)}"
        self._live.add(key)
        return key, crew.put(pack(thing))

    def _ship_data(self, crew: Crew, data: Tree) -> str:
        for key, known, _ in self._shipped.data:
            if known.keys() == data.keys() and all(known[k] is data[k] for k in data):
                return key
        key = f"{self.name}/data/{len(self._shipped.data)}"
        self._shipped.data.append((key, data, crew.put(pack(data, crew.shelve(self.name, data.values())))))
        return key

    def _ship_learner(self, crew: Crew) -> Any:
        """Once a run. Samples on a GPU stay there: workers copy them to theirs from the task's, which are the same."""
        if self._shipped.learner is None:
            learner, task = self.learner, self.learner.loss.task
            if learner.loss.device.type != "cpu" and _shapes(task.train) == _shapes(learner.data):
                learner = replace(learner, data=task.train)
            samples = [*learner.data.values(), *task.train.values(), *task.test.values()]
            self._shipped.learner = crew.put(pack(learner, crew.shelve(self.name, samples)))
            crew.tidy()
        return self._shipped.learner

    def _bring(self, hand: Hand, model: str, reference: Any, data: str = "") -> str:
        """See to it that a worker has what a piece needs; returns the learner's key."""
        learner = self._lesson[0]
        hand.learn(self._lesson)  # where another run's executor hired it
        if hand.number not in self._workers:
            self._workers[hand.number] = hand.facts
            self.on_event("worker_started", worker=hand.number, node=hand.facts["node"], device=hand.facts["kind"])
        for key, _, samples in self._shipped.data:
            if key == data and key not in hand.loaded:
                hand.actor.load.remote(key, learner, samples)
        if model not in hand.loaded:
            stale = [key for key in hand.loaded if key.startswith(f"{self.name}/model/") and key not in self._live]
            hand.loaded -= set(stale)
            hand.actor.load.remote(model, learner, reference, stale)
        hand.loaded |= {model, *([data] if data else [])}
        return learner

    def _block_work(self, plan: BlockPlan, model: str, reference: Any) -> Work:
        def send(hand: Hand) -> Any:
            learner = self._bring(hand, model, reference)
            return hand.actor.block.remote(learner, model, pack(plan), self.engine, self.chunk)

        clients = ", ".join(str(order.client) for order in plan.orders)
        return Work(
            send, max(plan.steps, 1), f"{plan.message_type}, block {plan.number} (clients {clients})", plan.number
        )

    def _send_evaluation(self, model: str, reference: Any, data: str, starts: range, hand: Hand) -> Any:
        learner = self._bring(hand, model, reference, data)
        return hand.actor.evaluate.remote(learner, model, data, starts)


def _shapes(data: Tree) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {k: (v.shape, v.dtype) for k, v in data.items()}
