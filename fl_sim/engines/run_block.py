"""What a worker does with one block: run it, check every client's reply, pool the good ones. No paper.

Nothing that is not finite, or not of the model's shape, is ever pooled: it is that client's failure.

Legend: C clients of an outcome.
"""

import math
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan, Order
from fl_sim.blocks.resolve import Block, Job, resolve
from fl_sim.engines.choose import ENGINES, Outcome
from fl_sim.engines.reply_checks import non_finite, shape_problem, table, update_norms
from fl_sim.engines.results import BlockResult, ClientResult
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


def run_plan(plan: BlockPlan, model: Tree, learner: Learner, engine: str, chunk: int, pool: Pool | None) -> BlockResult:
    """Run a block, whatever happens: with half the inner chunk where memory runs out; client by client where it raises as a whole."""
    while True:
        try:
            return run_block(plan, model, learner, engine, chunk, pool)
        except torch.OutOfMemoryError:
            at_once = min(chunk or len(plan.orders), len(plan.orders))
            if engine == "loop" or at_once == 1:
                return one_by_one(
                    plan, model, learner, chunk, pool, f"out of memory with one client at once on {engine}"
                )
            chunk = at_once // 2
        except Exception as error:  # a reply that no engine can read
            return one_by_one(plan, model, learner, chunk, pool, f"{engine} raised {type(error).__name__}: {error}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def one_by_one(plan: BlockPlan, model: Tree, learner: Learner, chunk: int, pool: Pool | None, why: str) -> BlockResult:
    """A block that raised as a whole, client by client on the loop, to name the culprit."""
    result = BlockResult(plan, [], notes=[f"{why}; the block's clients ran one by one on the loop"], chunk=chunk)
    for order in plan.orders:
        try:
            own = run_block(replace(plan, orders=[order]), model, learner, "loop", 1, pool)
        except Exception:
            result.clients.append(_failed(order, learner, traceback.format_exc()))
            continue
        result.clients += own.clients
        if pool is not None and own.partial is not None:
            result.partial = own.partial if result.partial is None else pool.merge(result.partial, own.partial)
    return result


def run_block(
    plan: BlockPlan, model: Tree, learner: Learner, engine: str, chunk: int, pool: Pool | None
) -> BlockResult:
    """Run a block on an engine. With a pool, replies are reduced as they come; without, each client keeps its own."""
    block, unresolved = resolve(plan, learner)
    outcomes = ENGINES[engine](block, model, learner, chunk) if block.jobs else ()
    return gather(plan, block, unresolved, outcomes, model, learner, chunk, pool)


def gather(
    plan: BlockPlan,
    block: Block,
    unresolved: Mapping[int, str],
    outcomes: Iterable[Outcome],
    model: Tree,
    learner: Learner,
    chunk: int,
    pool: Pool | None,
) -> BlockResult:
    """What came of a resolved block's clients, checked and pooled as it comes."""
    result = BlockResult(
        plan,
        [_failed(o, learner, unresolved[o.position]) for o in plan.orders if o.position in unresolved],
        chunk=chunk,
    )
    for outcome in outcomes:
        if outcome.note:
            result.notes.append(outcome.note)
        if outcome.error:
            result.clients += [_answer(job, reason=outcome.error) for job in outcome.jobs]
            continue
        result.places, result.samples = result.places + outcome.places, result.samples + outcome.samples
        results = _answers(outcome, block, model, learner)
        good = [i for i, answer in enumerate(results) if not answer.reason]
        if pool is not None and good:
            partial = (
                result.partial if result.partial is not None else pool.start({k: model[k] for k in outcome.replies})
            )
            chosen = outcome.replies if len(good) == len(results) else tree.take(outcome.replies, torch.tensor(good))
            weights = torch.tensor([results[i].weight for i in good], dtype=torch.float64)
            result.partial = pool.add(partial, chosen, weights)
        elif pool is None:
            for i in good:
                results[i].reply = tree.take(outcome.replies, i)
        result.clients += results
    return result


def _answer(job: Job, **numbers: Any) -> ClientResult:
    return ClientResult(job.position, job.client, job.sizes.train, job.steps, **numbers)


def _failed(order: Order, learner: Learner, reason: str) -> ClientResult:
    return ClientResult(
        order.position, order.client, learner.partition.sizes(order.client)[0], order.steps, reason=reason
    )


def _answers(outcome: Outcome, block: Block, model: Tree, learner: Learner) -> list[ClientResult]:
    wrong = shape_problem(outcome.replies, model, learner.loss.trainable, block.rule)
    norms = {} if wrong else update_norms(outcome.replies, model, block.rule)
    numbers = table({**outcome.metrics, **norms})
    bad = {} if wrong or all(map(math.isfinite, numbers.get("update_norm", ()))) else non_finite(outcome.replies)
    size = sum(x.numel() // len(outcome.jobs) * x.element_size() for x in outcome.replies.values())
    sound = all(all(map(math.isfinite, column)) for column in numbers.values())
    answers = []
    for c, job in enumerate(outcome.jobs):
        metrics = {k: v[c] for k, v in numbers.items()}
        reason = wrong or bad.get(c, "")
        if not sound:
            reason = reason or next((f"{k} is {v}" for k, v in metrics.items() if not math.isfinite(v)), "")
        weight = float(job.sizes.train) if block.weighting == "examples" else 1.0
        if weight <= 0:
            reason = reason or f"weight = {weight}: the client has no training samples"
        states = tree.take(outcome.states, c) if outcome.states and not reason else {}
        answers.append(_answer(job, weight=weight, metrics=metrics, state=states, num_bytes=size, reason=reason))
    return answers
