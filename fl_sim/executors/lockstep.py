"""Several runs as one batch: a hyper-parameter axis beside the clients, so that fifteen runs cost little more than one. No paper.

Each run keeps its own strategy, round log and failure policy, in a thread of its own; only one thread works at a time.
Where a run asks for blocks, or for an evaluation, it waits; once all wait, what they ask for is computed as one
``vmap``: models stacked beside clients, and the numbers in which the runs differ (``local.lr``, ``strategy.mu``) as one
tensor a client. Seeds differ in draws alone, which are made outside.

Legend: R runs, C clients of several runs.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner, local_settings
from fl_sim.blocks.plan import BlockPlan
from fl_sim.blocks.resolve import Block, resolve
from fl_sim.engines.evaluate import BLOCK, evaluate
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.results import BlockResult
from fl_sim.engines.run_block import gather, run_plan
from fl_sim.engines.vmap import trained
from fl_sim.executors.base import Executor
from fl_sim.learning.loss import Batch
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

LEAST, ROOM = 16, 32 * 2**20
"""On a CPU so many clients at once at least, and else as many as have weights of so many bytes: what a cache holds from step to step."""


@dataclass
class Asked:
    """What a run waits for: its blocks' results, or (where ``data`` is given) the metrics of its model on ``data``."""

    model: Tree
    plans: Sequence[BlockPlan] = ()
    pool: Pool | None = None
    data: Tree | None = None
    answer: Any = None
    error: BaseException | None = None


@dataclass
class _Part:
    """One plan of one run, resolved."""

    asked: Asked
    plan: BlockPlan
    block: Block
    unresolved: Mapping[int, str]


class Together:
    """Runs in lockstep.

    Parameters
    ----------
    learner : Learner
        Of one of the runs: all have the same samples, partition and loss.
    axis : Sequence[str]
        The settings of messages in which the runs differ: floats that a local rule computes with.
    chunk : int (default: 0)
        About so many clients at once, in whole blocks; 0: all of all runs, on a CPU in ROOM. Halved where memory runs out.
    """

    def __init__(self, learner: Learner, axis: Sequence[str], chunk: int = 0) -> None:
        self.learner, self.axis, self.chunk = learner, tuple(axis), chunk
        self._asked: dict[int, Asked] = {}
        self._go: dict[int, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._interrupt: BaseException | None = None

    def run(self, bodies: Sequence[Callable[[Executor], Any]]) -> list[Any]:
        """Run ``body(executor)`` of each run to its end; returns what each returned, in order. Raises the first exception of a body."""
        results: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}

        def life(number: int) -> None:
            self._go[number].acquire()
            try:
                results[number] = bodies[number](Party(self, number, len(bodies)))
            except BaseException as error:
                errors[number] = error
            alive.discard(number)
            self._back.release()

        alive = set(range(len(bodies)))
        self._go = {number: threading.Semaphore(0) for number in alive}
        threads = [threading.Thread(target=life, args=(number,), daemon=True) for number in alive]
        for thread in threads:
            thread.start()
        while alive:
            for number in sorted(alive):
                self._let(number)
            self._answer(list(self._asked.values()))
        for thread in threads:
            thread.join()
        for number in sorted(errors):
            raise errors[number]
        return [results[number] for number in range(len(bodies))]

    def _let(self, number: int) -> None:
        """Let one run work until it asks or ends. Ctrl-C reaches the main thread only: all get it at their next question."""
        self._asked.pop(number, None)
        with rng.kept_globals():
            self._go[number].release()
            while True:
                try:
                    self._back.acquire()
                    return
                except KeyboardInterrupt as interrupt:
                    self._interrupt = interrupt

    def ask(self, number: int, asked: Asked) -> Any:
        """Called by a run: wait until all ask, then its answer. Raises what went wrong."""
        self._asked[number] = asked
        with rng.kept_globals():  # others draw meanwhile
            self._back.release()
            self._go[number].acquire()
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def _answer(self, waiting: Sequence[Asked]) -> None:
        try:
            if self._interrupt is not None:
                raise self._interrupt
            evaluations: dict[int, list[Asked]] = {}
            for asked in waiting:
                if asked.data is not None:
                    evaluations.setdefault(id(asked.data), []).append(asked)
            for group in evaluations.values():
                self._evaluate(group)
            self._train([asked for asked in waiting if asked.data is None])
        except BaseException as error:
            for asked in waiting:
                asked.error = error

    # Training ------------------------------------------------------------------------------------------------------

    def _train(self, waiting: Sequence[Asked]) -> None:
        """All blocks of all runs, those of one number side by side: they are of similar length."""
        groups: dict[Any, list[_Part]] = {}
        for asked in waiting:
            asked.answer = [None] * len(asked.plans)
            for plan in asked.plans:
                try:
                    part = _Part(asked, plan, *resolve(plan, self.learner))
                except Exception:  # the block says itself, client by client, what is wrong with it
                    asked.answer[plan.number] = run_plan(
                        plan, asked.model, self.learner, "vmap", self.chunk, asked.pool
                    )
                    continue
                shared = {k: v for k, v in plan.settings.items() if k != "seed" and k not in self.axis}
                groups.setdefault((plan.message_type, tuple(sorted(shared.items()))), []).append(part)
        for parts in groups.values():
            parts.sort(key=lambda part: part.plan.number)
            for start, end in self._cuts(parts):
                for part, result in zip(parts[start:end], self._results(parts[start:end]), strict=True):
                    part.asked.answer[part.plan.number] = result

    def _cuts(self, parts: Sequence[_Part]) -> Iterator[tuple[int, int]]:
        """Whole blocks of about ``chunk`` clients."""
        most = self.chunk
        if not most and self.learner.loss.device.type == "cpu":
            most = max(LEAST, ROOM // max(tree.num_bytes(parts[0].asked.model), 1))
        start = clients = 0
        for end, part in enumerate(parts):
            if most and clients and clients + len(part.block.jobs) > most:
                yield start, end
                start, clients = end, 0
            clients += len(part.block.jobs)
        yield start, len(parts)

    def _results(self, parts: Sequence[_Part]) -> list[BlockResult]:
        try:
            whole = self._batch([part for part in parts if part.block.jobs])
        except torch.OutOfMemoryError:
            self.chunk = max(sum(len(part.block.jobs) for part in parts) // 2, 1)
            if len(parts) > 1:
                return [result for start, end in self._cuts(parts) for result in self._results(parts[start:end])]
            return [self._alone(parts[0], "out of memory")]
        except Exception as error:
            return [self._alone(part, f"{type(error).__name__}: {error}") for part in parts]
        results, start = [], 0
        for part in parts:
            end = start + len(part.block.jobs)
            mine = slice(start, end)
            replies, states, metrics = (tree.take(t, mine) for t in whole)
            outcomes = [Outcome(part.block.jobs, replies, states, metrics)] if part.block.jobs else []
            results.append(
                gather(
                    part.plan,
                    part.block,
                    part.unresolved,
                    outcomes,
                    part.asked.model,
                    self.learner,
                    self.chunk,
                    part.asked.pool,
                )
            )
            start = end
        return results

    def _alone(self, part: _Part, why: str) -> BlockResult:
        """A block that cannot train beside others."""
        result = run_plan(part.plan, part.asked.model, self.learner, "vmap", self.chunk, part.asked.pool)
        result.notes.insert(0, f"not trained beside the other runs: {why.splitlines()[0]}")
        return replace(result, chunk=self.chunk)

    def _batch(self, parts: Sequence[_Part]) -> tuple[Tree, Tree, Tree]:
        """(replies, states, metrics), each (C, ...): the blocks' clients as one batched model with a model of its own each."""
        if not parts:
            return {}, {}, {}
        learner, first = self.learner, parts[0]
        jobs = [job for part in parts for job in part.block.jobs]
        counts = torch.tensor([len(part.block.jobs) for part in parts])

        def each(values: Tensor) -> Tensor:  # (R, ...), a run's, to (C, ...), its clients'
            return values.repeat_interleave(counts.to(values.device), 0, output_size=len(jobs))

        models = {k: each(torch.stack([part.asked.model[k] for part in parts])) for k in first.asked.model}
        said = {k: [float(part.plan.settings[k]) for part in parts] for k in self.axis if k in first.plan.settings}
        own = {k: each(torch.tensor(v, dtype=learner.loss.dtype)).to(learner.loss.device) for k, v in said.items()}
        server_round = int(first.plan.settings.get("server-round", 0))

        def told(numbers: Mapping[str, Any]) -> tuple[LocalRule, Local]:
            settings = {**first.plan.settings, **numbers}
            return learner.rule(first.plan.message_type, settings), local_settings(settings, server_round)

        return trained(jobs, models, 0, learner, told, own)[:3]

    # Evaluation ----------------------------------------------------------------------------------------------------

    def _evaluate(self, waiting: Sequence[Asked]) -> None:
        """Means of each metric over all samples: one pass over the samples for all models."""
        loss, data = self.learner.loss, waiting[0].data or {}
        total = len(data["y"]) if data else 0
        sums: dict[str, Tensor] = {}
        try:
            models = tree.stack([{k: v.to(loss.device) for k, v in asked.model.items()} for asked in waiting])
            with torch.no_grad():
                for start in range(0, total, BLOCK):
                    rows = {k: v[start : start + BLOCK].to(loss.device) for k, v in data.items()}
                    batch = Batch(rows, torch.zeros(2, dtype=torch.int32, device=loss.device))
                    means = torch.func.vmap(lambda model, b=batch: loss.metrics(model, b))(models)
                    sums = {k: sums.get(k, 0.0) + v.double() * len(rows["y"]) for k, v in means.items()}
        except Exception:  # a model, or a metric of the user's, that vmap cannot take
            for asked in waiting:
                asked.answer = evaluate(loss, asked.model, data)
            return
        columns = {k: (v / total).tolist() for k, v in sums.items()}
        for number, asked in enumerate(waiting):
            asked.answer = {k: v[number] for k, v in columns.items()}


class Party(Executor):
    """One run's executor: what it asks for is computed together with what the others ask for."""

    engine = "vmap"

    def __init__(self, together: Together, number: int, runs: int) -> None:
        self.together, self.number, self.runs = together, number, runs

    @property
    def chunk(self) -> int:  # type: ignore[override]
        """That of all runs."""
        return self.together.chunk

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """All results at once, when all runs have asked."""
        return iter(self.together.ask(self.number, Asked(model, plans, pool)))

    def evaluate(self, model: Tree, data: Tree) -> dict[str, float]:
        """When all runs have asked."""
        answer: dict[str, float] = self.together.ask(self.number, Asked(model, data=data))
        return answer
