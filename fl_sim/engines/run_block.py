"""Runs one block: trains its clients on an engine, checks every client's reply, and pools the valid ones.

A reply with values that are not finite, or with other shapes than the model, is never pooled: that client has failed.
So has one whose new state holds NaN. A client that failed keeps the state that it had.

Legend: C clients of an outcome.
"""

import math
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from fl_sim import tree
from fl_sim.blocks.attack import Attack
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan, Order, alone
from fl_sim.blocks.resolve import Block, Job, resolve
from fl_sim.blocks.wave import model_of, models_of
from fl_sim.engines import drift, malicious
from fl_sim.engines.choose import ENGINES, Outcome
from fl_sim.engines.coding import Coded, code_replies
from fl_sim.engines.reply_checks import (
    STATE_SUM,
    nan_states,
    non_finite,
    own_state,
    shape_problem,
    state_sums,
    table,
    update_norms,
)
from fl_sim.engines.results import BlockResult, ClientResult, joined
from fl_sim.engines.set_evaluation import client_sets, split
from fl_sim.errors import Damaged
from fl_sim.learning.returned import reply_form
from fl_sim.tree import Tree
from fl_sim.wire.codec import split_state, with_kept
from fl_sim.wire.pool import Pool


def run_plan(plan: BlockPlan, model: Tree, learner: Learner, engine: str, chunk: int, pool: Pool | None) -> BlockResult:
    """Run a block and always return a result.

    Where memory runs out, the block runs again with half the inner chunk. Where the block raises as a whole, its
    clients run one by one on the loop.

    Parameters
    ----------
    plan : BlockPlan
        The block.
    model : Tree
        The global model, on the learner's device.
    learner : Learner
        Samples, loss and rules.
    engine : str
        loop or vmap.
    chunk : int
        Clients that train at once; 0: all.
    pool : Pool | None
        Reduces replies as they come; None: each client's result keeps its own reply.
    """
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
        except (KeyboardInterrupt, Damaged):  # no client's fault
            raise
        except BaseException as error:  # such as a reply that no engine can read
            return one_by_one(plan, model, learner, chunk, pool, f"{engine} raised {type(error).__name__}: {error}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def one_by_one(
    plan: BlockPlan, model: Tree, learner: Learner, chunk: int, pool: Pool | None, reason: str
) -> BlockResult:
    """Run the clients of a block that raised as a whole one by one on the loop, to find the client that raises."""

    def run_one(one: BlockPlan) -> BlockResult:
        try:
            return run_block(one, model, learner, "loop", 1, pool)
        except (KeyboardInterrupt, Damaged):  # no client's fault
            raise
        except BaseException:
            return BlockResult(one, [failed_result(one.orders[0], learner, traceback.format_exc())])

    result = joined(plan, map(run_one, alone(plan)), pool, chunk)
    result.notes.append(f"{reason}; the block's clients ran one by one on the loop")
    return result


def run_block(
    plan: BlockPlan, model: Tree, learner: Learner, engine: str, chunk: int, pool: Pool | None
) -> BlockResult:
    """Run a block on an engine; the parameters are those of ``run_plan``. Raises what the engine raises."""
    if plan.attack is not None:
        learner = malicious.learner_of(learner, plan.attack)
    block, unresolved = resolve(plan, learner, model)
    outcomes = ENGINES[engine](block, model, learner, chunk) if block.jobs else ()
    return collect_results(plan, block, unresolved, outcomes, model, learner, chunk, pool)


def collect_results(
    plan: BlockPlan,
    block: Block,
    unresolved: Mapping[int, str],
    outcomes: Iterable[Outcome],
    model: Tree,
    learner: Learner,
    chunk: int,
    pool: Pool | None,
) -> BlockResult:
    """Check the outcomes of a resolved block as they come, and pool them.

    ``unresolved``: position -> traceback of the clients that could not be resolved.
    """
    result = BlockResult(
        plan,
        [failed_result(o, learner, unresolved[o.position]) for o in plan.orders if o.position in unresolved],
        chunk=chunk,
    )
    form = reply_form(block.rule, model_of(model, plan.orders[0].launch), learner.loss)
    coding = learner.coding(plan.settings) if plan.message_type.startswith("train") else None
    measures_drift = learner.log_drift and plan.message_type.startswith("train")
    computed = not isinstance(outcomes, Sequence)  # those of a list were computed before, together with other runs'
    start = time.perf_counter()
    for outcome in outcomes:
        if outcome.note:
            result.notes.append(outcome.note)
        if outcome.error:
            result.clients += [_client_result(job, reason=outcome.error) for job in outcome.jobs]
            continue
        result.places, result.samples = result.places + outcome.places, result.samples + outcome.samples
        if plan.attack is not None:
            _attack(plan.attack, outcome, block, form, learner)
        anchors = form if plan.orders[0].launch is None else models_of(model, [job.launch for job in outcome.jobs])[0]
        coded = Coded()
        if coding is not None:
            coded = code_replies(coding, outcome, block, form, anchors, learner.loss, learner.keeps_codes)
        results = _client_results(outcome, block, form, anchors, learner, coded, plan.states)
        pooling = time.perf_counter()
        for client in results if computed else ():
            client.seconds = (pooling - start) / len(results)
        valid = [i for i, client in enumerate(results) if not client.reason]
        if valid:
            _take_in(result, pool, outcome, results, valid, form, coded)
        if pool is not None and valid:
            result.pool_seconds += time.perf_counter() - pooling
        if measures_drift and valid:
            chosen, names = tree.take(outcome.replies, torch.tensor(valid)), learner.loss.trainable
            own = [results[i].weight for i in valid]
            result.drift = drift.added(result.drift, chosen, own, model, block.rule, names)
        result.clients += results
        start = time.perf_counter()
    return result


def _take_in(
    result: BlockResult,
    pool: Pool | None,
    outcome: Outcome,
    results: Sequence[ClientResult],
    valid: Sequence[int],
    form: Tree,
    coded: Coded,
) -> None:
    """Add the ``valid`` replies of an outcome to the block's partial pool; without a pool, to their own results."""
    if pool is not None:
        partial = result.partial if result.partial is not None else pool.start({k: form[k] for k in outcome.replies})
        chosen = outcome.replies if len(valid) == len(results) else tree.take(outcome.replies, torch.tensor(valid))
        weights = torch.tensor([results[i].weight for i in valid], dtype=torch.float64)
        result.partial = pool.add(partial, chosen, weights)
        return
    for i in valid:
        reply, code = tree.take(outcome.replies, i), coded.codes.get(i, {})
        results[i].reply = {k: x for k, x in reply.items() if k not in coded.names} if code else reply
        results[i].code = code


def _attack(attack: Attack, outcome: Outcome, block: Block, form: Tree, learner: Learner) -> None:
    """Replace the replies of malicious clients by what they send; those that do not fit ``form`` will be failures."""
    trained = tuple(k for k in learner.loss.trainable if k in form)
    if not shape_problem(outcome.replies, form, trained, block.rule):
        outcome.replies = malicious.sent(outcome.replies, outcome.jobs, form, block.rule, trained, attack)


def _client_result(job: Job, **numbers: Any) -> ClientResult:
    return ClientResult(job.position, job.client, job.sizes.train, job.steps, **numbers)


def failed_result(order: Order, learner: Learner, reason: str) -> ClientResult:
    """The result of a client that failed before anything of it was known but its order."""
    return ClientResult(
        order.position, order.client, learner.partition.sizes(order.client)[0], order.steps, reason=reason
    )


def _client_results(
    outcome: Outcome,
    block: Block,
    form: Tree,
    anchors: Tree,
    learner: Learner,
    coded: Coded,
    states: Mapping[int, Tree],
) -> list[ClientResult]:
    """The results of an outcome.

    ``anchors``: the model, or those (C, ...), from which its clients started; ``states``: client id -> its old state.
    """
    trained = tuple(k for k in learner.loss.trainable if k in form)
    problem = shape_problem(outcome.replies, form, trained, block.rule)
    norms = {} if problem else update_norms(outcome.replies, anchors, block.rule)
    means, parts = split(outcome.metrics)
    numbers = table({**means, **norms, **({} if problem else state_sums(outcome.states))})
    nan = nan_states(outcome.states) if not all(map(math.isfinite, numbers.pop(STATE_SUM, ()))) else {}
    bad = {} if problem or all(map(math.isfinite, numbers.get("update_norm", ()))) else non_finite(outcome.replies)
    raw = sum(x.numel() // len(outcome.jobs) * x.element_size() for x in outcome.replies.values())
    size, before_coding = (coded.num_bytes, raw) if coded.num_bytes else (raw, 0)
    all_finite = all(all(map(math.isfinite, column)) for column in numbers.values())
    results = []
    for c, job in enumerate(outcome.jobs):
        metrics = {k: v[c] for k, v in numbers.items()}
        reason = problem or coded.problems.get(c, "") or bad.get(c, "") or nan.get(c, "")
        if not all_finite:
            reason = reason or next((f"{k} is {v}" for k, v in metrics.items() if not math.isfinite(v)), "")
        weight = float(job.sizes.train) if block.weighting == "examples" else 1.0
        if weight <= 0:
            reason = reason or f"weight = {weight}: the client has no training samples"
        state = own_state(outcome.states, c) if not reason else {}
        if c in coded.kept and not reason:
            state = with_kept(state or split_state(states.get(job.client, {}))[0], coded.kept[c])
        sets = client_sets(learner.loss, parts, c) if not reason else {}
        facts = {"num_bytes": size, "num_bytes_raw": before_coding, "reason": reason}
        results.append(_client_result(job, weight=weight, metrics=metrics, sets=sets, state=state, **facts))
    return results
