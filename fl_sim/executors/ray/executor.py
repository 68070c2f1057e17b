"""The executor that runs blocks on Ray's workers: processes of this machine or of a cluster.

A run's samples and loss are sent to a worker once, through the object store: all workers of a machine read the same
memory. The global model is sent once a round; partial pools and numbers come back. ``fl_sim.executors.ray.dispatch``
decides which worker takes which block. The death of a worker costs time and never changes a result.
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
from torch import Tensor

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan, alone
from fl_sim.engines.evaluate import BLOCK, means, num_rows
from fl_sim.engines.results import BlockResult, joined
from fl_sim.engines.run_block import failed_result
from fl_sim.executors.base import Executor
from fl_sim.executors.ray.cluster import max_workers
from fl_sim.executors.ray.dispatch import Dispatch
from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.ray_workers import RayWorkers, shut_down_workers, workers_for
from fl_sim.executors.ray.serialize import pack, unpack
from fl_sim.executors.ray.work_items import TIMED_OUT, WorkItem
from fl_sim.executors.ray.worker import ROWS, ComputeSettings
from fl_sim.executors.ray.worker_handle import LearnerMessage, WorkerHandle
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

__all__ = ["RayExecutor", "max_workers", "shut_down_workers"]

GIBIBYTE = 2**30
EVALUATION_ITEMS = 4
"""Work items per worker into which an evaluation is divided, each of whole blocks."""
_run_names = itertools.count()


@dataclass
class _Stored:
    """References to the objects of one run in the object store."""

    learner: object = None
    data: list[tuple[str, Tree, object]] = field(default_factory=list)
    """(key, samples, reference)."""


class RayExecutor(Executor):
    """Runs blocks on Ray's workers, which start with the first block and stay for the next run of this process.

    Parameters
    ----------
    learner : Learner
        On the CPU or on a GPU; workers have their own copy of the model, and on a GPU of the samples.
    engine : str
        Engine inside a worker: loop or vmap.
    chunk : int
        Clients of a block that train at once; 0: all.
    settings : Ray
        How many workers, what each reserves, and the address of the cluster.
    threads : int
        PyTorch's threads inside a worker.
    limit_s : float (default: 0, no limit)
        Seconds that a client may take, with vmap a block; then its worker is ended.

    Raises
    ------
    ValueError
        Where Ray is not installed.
    """

    def __init__(
        self, learner: Learner, engine: str, chunk: int, settings: Ray, threads: int, limit_s: float = 0.0
    ) -> None:
        try:
            installed = importlib.util.find_spec("ray") is not None
        except ValueError:  # sys.modules has an entry for Ray that is no module
            installed = False
        if not installed:
            raise ValueError("engine = 'ray': Ray is not installed; pip install ray, or use --engine loop")
        self.learner, self.engine, self.chunk, self.settings, self.threads = learner, engine, chunk, settings, threads
        self.limit_s = limit_s or math.inf
        self.name, self._models = str(next(_run_names)), itertools.count()
        self._workers: RayWorkers | None = None
        self._dispatch: Dispatch | None = None
        self._stored = _Stored()
        self._learner_message: LearnerMessage
        self._count = settings.num_workers
        self._computed_by: dict[tuple[int, int], int] = {}
        """(block, position of a client in it) -> the worker that it was last sent to."""
        self._current_models: set[str] = set()
        """Keys of the models that are being trained or evaluated."""
        self._took_part: dict[int, dict[str, object]] = {}
        """Number -> facts of each worker that computed something for this run."""

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Results in the order of ``plans``.

        Starts with the first ``next()``; at most two blocks per worker are started and not yet yielded.
        """
        if not plans:
            return
        workers, dispatch = self._start(len(plans))
        key, reference = self._store_model(workers, (model, pool))
        self._computed_by.clear()
        items = [self._block_item(plan, key, reference) for plan in plans]
        try:
            with closing(dispatch.run(plans[0].message_type, items)) as replies:
                for plan, packed in zip(plans, replies, strict=True):
                    result = self._result(plan, packed, pool)
                    for client in result.clients:
                        client.worker = self._computed_by.get((plan.number, client.position))
                    self.chunk = result.chunk = min(filter(None, (self.chunk, result.chunk)), default=0)
                    yield result
        finally:
            self._current_models.discard(key)

    def _result(self, plan: BlockPlan, answer: Any, pool: Pool | None) -> BlockResult:
        """The result of a block: as a worker packed it, or from those of its clients, if it took too long."""
        if answer is TIMED_OUT:
            reason = f"no result within {self.limit_s:g} s (client_timeout); its worker was ended"
            clients = [failed_result(order, self.learner, reason) for order in plan.orders]
            return BlockResult(plan, clients, chunk=self.chunk, bits_changed=True)
        if isinstance(answer, list):
            singles = (self._result(one, part, pool) for one, part in zip(alone(plan), answer, strict=True))
            return replace(joined(plan, singles, pool, self.chunk), bits_changed=True)
        result: BlockResult = unpack(answer, device="cpu")
        result.plan = plan
        return result

    def evaluate(self, model: Tree, data: Tree, rows: Tensor | None = None) -> dict[str, float]:
        """Evaluation blocks are computed on all workers and summed in their order: the bits of one process."""
        total = num_rows(data, rows)
        if not total:
            return {}
        starts = range(0, total, BLOCK)
        workers, dispatch = self._start(len(starts))
        key, reference = self._store_model(workers, (model, None))
        samples = "" if data is self.learner.data else self._store_data(workers, data)
        chosen = "" if rows is None else self._store_data(workers, {ROWS: rows})
        size = math.ceil(len(starts) / (EVALUATION_ITEMS * workers.count))
        groups = [starts[i : i + size] for i in range(0, len(starts), size)]
        items = [
            WorkItem(
                partial(self._send_evaluation, key, reference, samples, chosen, group),
                len(group),
                f"central evaluation from sample {group[0]}",
            )
            for group in groups
        ]
        try:
            return means([sums for group in dispatch.run("central evaluation", items) for sums in group], total)
        finally:
            self._current_models.discard(key)

    def summary(self) -> dict[str, Any]:
        """For summary.json: numbers of workers and nodes, kinds of device, idle share, lost items and workers."""
        facts, dispatch = list(self._took_part.values()), self._dispatch
        return {
            "num_workers": self._count,
            "nodes": len({fact["node"] for fact in facts}),
            "kinds": sorted({fact["kind"] for fact in facts}),
            "idle_share": round(dispatch.idle_share, 4) if dispatch is not None else None,
            "retries": dispatch.retries if dispatch is not None else 0,
            "restarts": dispatch.restarts if dispatch is not None else 0,
        }

    def close(self) -> None:
        """Let workers drop this run's objects; they stay for the next run, until ``shut_down_workers`` is called."""
        if self._workers is not None:
            self._workers.forget_run(self.name)
        self._workers, self._stored = None, _Stored()

    # What is sent to workers --------------------------------------------------------------------------------------

    def _start(self, num_items: int) -> tuple[RayWorkers, Dispatch]:
        """(the workers, ready or starting, with this run's learner; the dispatcher that hands items to them)."""
        gpus = self._gpus()
        settings = replace(self.settings, num_gpus=gpus)
        count = self.settings.num_workers or min(max_workers(settings), num_items)
        self._count = count = max(count, self._count)
        task = self.learner.loss.task
        size = tree.num_bytes(self.learner.data) + tree.num_bytes(task.test)
        workers = workers_for(settings, count, 2 * size + GIBIBYTE)
        if workers is not self._workers or self._dispatch is None:
            self._workers, self._stored = workers, _Stored()
            old, self._dispatch = self._dispatch, Dispatch(workers, lambda kind, **facts: self.on_event(kind, **facts))
            if old is not None:
                self._dispatch.retries, self._dispatch.restarts = old.retries, old.restarts
        self._learner_message = LearnerMessage(
            f"{self.name}/learner", ComputeSettings(self.threads), self._store_learner(workers)
        )
        workers.send_learner(self._learner_message)
        return workers, self._dispatch

    def _gpus(self) -> float:
        """GPUs that a worker reserves: as set; else one, or an equal share where there are more workers than GPUs."""
        if self.settings.num_gpus or self.learner.loss.device.type != "cuda":
            return self.settings.num_gpus
        gpus = max(torch.cuda.device_count(), 1)
        return 1 / math.ceil(max(self.settings.num_workers, 1) / gpus)

    def _store_model(self, workers: RayWorkers, model_and_pool: tuple[Tree, Pool | None]) -> tuple[str, object]:
        key = f"{self.name}/model/{next(self._models)}"
        self._current_models.add(key)
        return key, workers.put(pack(model_and_pool))

    def _store_data(self, workers: RayWorkers, data: Tree) -> str:
        for key, known, _ in self._stored.data:
            if known.keys() == data.keys() and all(known[k] is data[k] for k in data):
                return key
        key = f"{self.name}/data/{len(self._stored.data)}"
        self._stored.data.append((key, data, workers.put(pack(data, workers.array_sharing(self.name, data.values())))))
        return key

    def _store_learner(self, workers: RayWorkers) -> object:
        """Store the learner, once a run.

        Samples on a GPU are not sent: workers copy the task's own samples, which are equal, to their GPU.
        """
        if self._stored.learner is None:
            learner, task = self.learner, self.learner.loss.task
            if learner.loss.device.type != "cpu" and _shapes(task.train) == _shapes(learner.data):
                learner = replace(learner, data=task.train)
            samples = [*learner.data.values(), *task.train.values(), *task.test.values()]
            self._stored.learner = workers.put(pack(learner, workers.array_sharing(self.name, samples)))
            workers.drop_unused_arrays()
        return self._stored.learner

    def _send_missing(self, worker: WorkerHandle, model: str, reference: object, *data: str) -> str:
        """Send a worker the objects that an item needs and that it does not have; returns the learner's key."""
        learner = self._learner_message.key
        worker.send_learner(self._learner_message)  # another run's executor may have started it
        if worker.number not in self._took_part:
            self._took_part[worker.number] = worker.facts
            self.on_event(
                "worker_started", worker=worker.number, node=worker.facts["node"], device=worker.facts["kind"]
            )
        for key, _, samples in self._stored.data:
            if key in data and key not in worker.loaded:
                worker.actor.load.remote(key, learner, samples)
        if model not in worker.loaded:
            stale = [
                key
                for key in worker.loaded
                if key.startswith(f"{self.name}/model/") and key not in self._current_models
            ]
            worker.loaded -= set(stale)
            worker.actor.load.remote(model, learner, reference, stale)
        worker.loaded |= {model, *filter(None, data)}
        return learner

    def _block_item(self, plan: BlockPlan, model: str, reference: object, engine: str = "") -> WorkItem:
        """The item of a block; where it takes too long, each of its clients becomes an item, on the loop."""
        kind = engine or self.engine

        def send(worker: WorkerHandle) -> object:
            learner = self._send_missing(worker, model, reference)
            self._computed_by |= dict.fromkeys(((plan.number, o.position) for o in plan.orders), worker.number)
            return worker.actor.run_block.remote(learner, model, pack(plan), kind, self.chunk)

        def split() -> list[WorkItem]:
            return [self._block_item(one, model, reference, "loop") for one in alone(plan)]

        clients = ", ".join(str(order.client) for order in plan.orders)
        name = f"{plan.message_type}, block {plan.number} (clients {clients})"
        limit_s = self.limit_s * (len(plan.orders) if kind == "loop" else 1)
        several = split if len(plan.orders) > 1 else None
        return WorkItem(send, max(plan.steps, 1), name, plan.number, limit_s=limit_s, split=several)

    def _send_evaluation(
        self, model: str, reference: object, data: str, rows: str, starts: range, worker: WorkerHandle
    ) -> object:
        learner = self._send_missing(worker, model, reference, data, rows)
        return worker.actor.evaluate.remote(learner, model, data, rows, starts)


def _shapes(data: Tree) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {k: (v.shape, v.dtype) for k, v in data.items()}
