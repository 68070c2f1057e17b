"""Several runs as one batch: a hyper-parameter axis beside the clients, so that fifteen runs cost little more than one.

Each run keeps its own strategy, round log and failure policy, in a thread of its own; only one thread works at a time.
A run that requests blocks, or an evaluation, waits. Once all runs wait, their requests are computed as one ``vmap``:
models are stacked beside clients, and the settings in which the runs differ (``local.lr``, ``strategy.mu``) are a
tensor with one value per client. A seed changes only the draws, which are computed outside of ``vmap``.

Legend: R runs, C clients of several runs.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner, local_settings
from fl_sim.blocks.plan import BlockPlan
from fl_sim.blocks.resolve import Job, resolve
from fl_sim.engines.evaluate import evaluate_models
from fl_sim.engines.malicious import learner_of
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.results import BlockResult
from fl_sim.engines.run_block import collect_results, run_plan
from fl_sim.engines.vmap import by_state, train_clients
from fl_sim.executors.base import Executor
from fl_sim.executors.run_requests import Part, Request
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

MIN_CLIENTS, CACHE_BYTES = 16, 32 * 2**20
"""On a CPU, as many clients train at once as have CACHE_BYTES of weights, to fit a cache; at least MIN_CLIENTS."""


class Lockstep:
    """Runs several runs in lockstep.

    Parameters
    ----------
    learner : Learner
        Of one of the runs, with whose loss all are computed: they have the same samples and the same network. What
        depends on the seed, as the network's own weights do, is that of each run's own learner.
    axis : Sequence[str]
        The message settings in which the runs differ: floats that a local rule computes with.
    chunk : int (default: 0)
        Clients that train at once, rounded to whole blocks; 0: all clients of all runs, on a CPU as many as CACHE_BYTES
        allows. Halved where memory runs out.
    """

    def __init__(self, learner: Learner, axis: Sequence[str], chunk: int = 0) -> None:
        self.learner, self.axis, self.chunk = learner, tuple(axis), chunk
        self._requests: dict[int, Request] = {}
        """Number of a run -> what it waits for."""
        self._resume: dict[int, threading.Semaphore] = {}
        """Released to let a run's thread work."""
        self._paused = threading.Semaphore(0)
        """Released by a run's thread that waits or has ended."""
        self._interrupt: BaseException | None = None

    def run(self, bodies: Sequence[Callable[["LockstepExecutor"], object]]) -> list[Any]:
        """Call ``body(executor)`` of each run in its own thread, until all have returned.

        Returns the results in the order of ``bodies``. Raises the first exception of a body.
        """
        results: dict[int, object] = {}
        errors: dict[int, BaseException] = {}

        def run_body(number: int) -> None:
            self._resume[number].acquire()
            try:
                results[number] = bodies[number](LockstepExecutor(self, number, len(bodies)))
            except BaseException as error:
                errors[number] = error
            alive.discard(number)
            self._paused.release()

        alive = set(range(len(bodies)))
        self._resume = {number: threading.Semaphore(0) for number in alive}
        threads = [threading.Thread(target=run_body, args=(number,), daemon=True) for number in alive]
        for thread in threads:
            thread.start()
        while alive:
            for number in sorted(alive):
                self._work(number)
            self._compute(list(self._requests.values()))
        for thread in threads:
            thread.join()
        for number in sorted(errors):
            raise errors[number]
        return [results[number] for number in range(len(bodies))]

    def _work(self, number: int) -> None:
        """Let one run work until its next request or its end.

        Ctrl-C reaches the main thread only; the runs get it as the error of their next request.
        """
        self._requests.pop(number, None)
        with rng.kept_globals():
            self._resume[number].release()
            while True:
                try:
                    self._paused.acquire()
                    return
                except KeyboardInterrupt as interrupt:
                    self._interrupt = interrupt

    def submit(self, number: int, request: Request) -> Any:
        """Called by a run's thread: wait until all runs have a request, then return the result.

        Raises the error that occurred while the requests were computed.
        """
        self._requests[number] = request
        with rng.kept_globals():  # other runs draw meanwhile
            self._paused.release()
            self._resume[number].acquire()
        if request.error is not None:
            raise request.error
        return request.result

    def _compute(self, requests: Sequence[Request]) -> None:
        try:
            if self._interrupt is not None:
                raise self._interrupt
            evaluations: dict[object, list[Request]] = {}
            for request in requests:
                if request.data is not None:
                    same = tuple(id(v) for v in request.data.values()), id(request.rows)
                    evaluations.setdefault(same, []).append(request)
            for group in evaluations.values():
                models, first = [request.model for request in group], group[0]
                metrics = evaluate_models(self.learner.loss, models, first.data or {}, first.rows)
                for request, result in zip(group, metrics, strict=True):
                    request.result = result
            self._train([request for request in requests if request.data is None])
        except BaseException as error:
            for request in requests:
                request.error = error

    def _train(self, requests: Sequence[Request]) -> None:
        """Train all blocks of all runs; blocks of one number train together, because they are of similar length."""
        groups: dict[object, list[Part]] = {}
        for request in requests:
            request.result = dict.fromkeys(plan.number for plan in request.plans)
            for plan in request.plans:
                try:
                    part = Part(request, plan, *resolve(plan, request.learner, request.model))
                except Exception:  # run_plan finds the clients that fail
                    request.result[plan.number] = run_plan(
                        plan, request.model, request.learner, "vmap", self.chunk, request.pool
                    )
                    continue
                shared = {k: v for k, v in plan.settings.items() if k != "seed" and k not in self.axis}
                kind = plan.message_type, tuple(sorted(shared.items())), plan.attack is None
                groups.setdefault(kind, []).append(part)
        for parts in groups.values():
            parts.sort(key=lambda part: part.plan.number)
            for start, end in self._slices(parts):
                for part, result in zip(parts[start:end], self._results(parts[start:end]), strict=True):
                    part.request.result[part.plan.number] = result

    def _slices(self, parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
        """(start, end) of slices of whole blocks, with about ``chunk`` clients each."""
        limit = self.chunk
        if not limit and self.learner.loss.device.type == "cpu":
            limit = max(MIN_CLIENTS, CACHE_BYTES // max(tree.num_bytes(parts[0].request.model), 1))
        start = clients = 0
        for end, part in enumerate(parts):
            if limit and clients and clients + len(part.block.jobs) > limit:
                yield start, end
                start, clients = end, 0
            clients += len(part.block.jobs)
        yield start, len(parts)

    def _results(self, parts: Sequence[Part]) -> list[BlockResult]:
        try:
            outcomes = self._train_batch(parts)
        except torch.OutOfMemoryError:
            self.chunk = max(sum(len(part.block.jobs) for part in parts) // 2, 1)
            if len(parts) > 1:
                return [result for start, end in self._slices(parts) for result in self._results(parts[start:end])]
            return [self._run_alone(parts[0], "out of memory")]
        except Exception as error:
            return [self._run_alone(part, f"{type(error).__name__}: {error}") for part in parts]
        return [
            collect_results(
                part.plan,
                part.block,
                part.unresolved,
                own,
                part.request.model,
                part.request.learner,
                self.chunk,
                part.request.pool,
            )
            for part, own in zip(parts, outcomes, strict=True)
        ]

    def _run_alone(self, part: Part, reason: str) -> BlockResult:
        """Run a block that cannot train beside others."""
        own = part.request
        result = run_plan(part.plan, own.model, own.learner, "vmap", self.chunk, own.pool)
        result.notes.insert(0, f"not trained beside the other runs: {reason.splitlines()[0]}")
        return replace(result, chunk=self.chunk)

    def _train_batch(self, parts: Sequence[Part]) -> list[list[Outcome]]:
        """The outcomes of each block, trained together: clients whose states can be stacked as one batched model."""
        jobs = [job for part in parts for job in part.block.jobs]
        owners = [number for number, part in enumerate(parts) for _ in part.block.jobs]
        outcomes: list[list[Outcome]] = [[] for _ in parts]
        for group in by_state(jobs):
            counts = Counter(owners[i] for i in group)  # in the order of parts
            chosen = [jobs[i] for i in group]
            trained = self._train_clients(chosen, [parts[number] for number in counts], list(counts.values()))
            start = 0
            for number, count in counts.items():
                rows = slice(start, start + count)
                replies, states, metrics = (tree.take(t, rows) for t in trained)
                outcomes[number].append(Outcome(chosen[rows], replies, states, metrics))
                start += count
        return outcomes

    def _train_clients(
        self, jobs: Sequence[Job], parts: Sequence[Part], clients: Sequence[int]
    ) -> tuple[Tree, Tree, Tree]:
        """Train clients (C) as one batched model; ``clients`` of each part, each starts from the model of its run.

        Returns (replies, states, metrics), each leaf (C, ...).
        """
        learner, first = self.learner, parts[0]
        if first.plan.attack is not None:
            learner = learner_of(learner, first.plan.attack)
        counts = torch.tensor(clients)

        def per_client(values: Tensor) -> Tensor:
            """One value per block (R, ...) -> one value per client (C, ...)."""
            return values.repeat_interleave(counts.to(values.device), 0, output_size=len(jobs))

        models = {k: per_client(torch.stack([part.request.model[k] for part in parts])) for k in first.request.model}
        columns = {k: [float(part.plan.settings[k]) for part in parts] for k in self.axis if k in first.plan.settings}
        varying = {
            k: per_client(torch.tensor(v, dtype=learner.loss.dtype)).to(learner.loss.device) for k, v in columns.items()
        }
        server_round = int(first.plan.settings.get("server-round", 0))

        def rule_with(numbers: Mapping[str, object]) -> tuple[LocalRule, Local]:
            settings = {**first.plan.settings, **numbers}
            return learner.rule(first.plan.message_type, settings), local_settings(settings, server_round)

        return train_clients(jobs, models, 0, learner, rule_with, varying)[:3]


class LockstepExecutor(Executor):
    """The executor of one run: its requests are computed together with those of the other runs."""

    engine = "vmap"

    def __init__(self, lockstep: Lockstep, number: int, runs: int) -> None:
        self.lockstep, self.number, self.runs = lockstep, number, runs
        self.learner = lockstep.learner
        """The run's own, once it has been built."""

    @property
    def chunk(self) -> int:  # type: ignore[override]
        """The chunk that all runs share."""
        return self.lockstep.chunk

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """The results of all blocks, computed once every run has a request."""
        return iter(self.lockstep.submit(self.number, Request(model, self.learner, plans, pool)).values())

    def evaluate(self, model: Tree, data: Tree, rows: Tensor | None = None) -> dict[str, float]:
        """The metrics, computed once every run has a request."""
        metrics: dict[str, float] = self.lockstep.submit(
            self.number, Request(model, self.learner, data=data, rows=rows)
        )
        return metrics
