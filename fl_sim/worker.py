"""What a worker does with one block: run it, check every client's reply, pool the good ones. No paper.

Nothing that is not finite, or not of the model's shape, is ever pooled: it is that client's failure.

Legend: C clients of an outcome.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.block import Block, Job, Learner
from fl_sim.engine import ENGINES, Outcome
from fl_sim.local import LocalRule
from fl_sim.pool import Pool
from fl_sim.tree import Tree


@dataclass
class ClientResult:
    """One client's answer."""

    job: Job
    weight: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    reply: Tree = field(default_factory=dict)
    """Its own model or update; empty where the block was pooled."""
    state: Tree = field(default_factory=dict)
    num_bytes: int = 0
    """Bytes of its reply, pooled or not: what a real device would send."""
    reason: str = ""
    """Why it failed; empty if it did not."""


@dataclass
class BlockResult:
    """A block's answer: the partial pool of its surviving clients, and each client's own numbers."""

    block: Block
    clients: list[ClientResult]
    partial: Tree | None = None
    notes: list[str] = field(default_factory=list)


def run_block(block: Block, model: Tree, learner: Learner, engine: str, chunk: int, pool: Pool | None) -> BlockResult:
    """Run a block on an engine. With a pool, replies are reduced as they come; without, each client keeps its own."""
    result = BlockResult(block, [])
    like = {k: model[k] for k in model}
    for outcome in ENGINES[engine](block, model, learner, chunk):
        if outcome.note:
            result.notes.append(outcome.note)
        if outcome.error:
            result.clients += [ClientResult(job, reason=outcome.error) for job in outcome.jobs]
            continue
        results = _answers(outcome, block, like, learner)
        good = [i for i, answer in enumerate(results) if not answer.reason]
        if pool is not None and good:
            partial = result.partial if result.partial is not None else pool.start({k: like[k] for k in outcome.replies})
            chosen = outcome.replies if len(good) == len(results) else tree.take(outcome.replies, torch.tensor(good))
            weights = torch.tensor([results[i].weight for i in good], dtype=torch.float64)
            result.partial = pool.add(partial, chosen, weights)
        elif pool is None:
            for i in good:
                results[i].reply = tree.take(outcome.replies, i)
        result.clients += results
    return result


def _answers(outcome: Outcome, block: Block, model: Tree, learner: Learner) -> list[ClientResult]:
    wrong = shape_problem(outcome.replies, model, learner.loss.trainable, block.rule)
    norms = [] if wrong else update_norms(outcome.replies, model, block.rule)
    bad = {} if all(map(math.isfinite, norms)) else non_finite(outcome.replies)
    numbers = {k: v.tolist() for k, v in outcome.metrics.items()}
    size = sum(x[0].numel() * x.element_size() for x in outcome.replies.values())
    answers = []
    for c, job in enumerate(outcome.jobs):
        metrics = {k: float(v[c]) for k, v in numbers.items()}
        if norms:
            metrics["update_norm"] = norms[c]
        reason = wrong or bad.get(c, "") or next((f"{k} is {v}" for k, v in metrics.items() if not math.isfinite(v)), "")
        weight = float(job.sizes.train) if block.weighting == "examples" else 1.0
        if weight <= 0:
            reason = reason or f"weight = {weight}: the client has no training samples"
        states = {} if reason else tree.take(outcome.states, c)
        answers.append(ClientResult(job, weight, metrics, {}, states, size, reason))
    return answers


def shape_problem(replies: Mapping[str, Tensor], model: Tree, trainable: tuple[str, ...], rule: LocalRule) -> str:
    """Why stacked replies (C, ...) do not fit the model they answer, or nothing."""
    if rule.reply_kind == "none":
        return ""
    missing, unknown = sorted(set(trainable) - set(replies)), sorted(set(replies) - set(model))
    if missing or unknown:
        return f"wrong keys: missing {missing}, unknown {unknown}"
    for k, x in replies.items():
        if x.shape[1:] != model[k].shape:
            return f"wrong shape: {k} is {tuple(x.shape[1:])}, must be {tuple(model[k].shape)}"
        if x.dtype != model[k].dtype:
            return f"wrong dtype: {k} is {x.dtype}, must be {model[k].dtype}"
    return ""


def non_finite(replies: Mapping[str, Tensor]) -> dict[int, str]:
    """Position in C -> which leaf of its reply holds NaN or infinity."""
    bad: dict[int, str] = {}
    for k, x in replies.items():
        if x.is_floating_point():
            finite = torch.isfinite(x).reshape(len(x), -1).all(1)
            if not bool(finite.all()):
                for c in (~finite).nonzero().flatten().tolist():
                    bad.setdefault(c, f"NaN or infinity in {k}")
    return bad


def update_norms(replies: Mapping[str, Tensor], model: Tree, rule: LocalRule) -> list[float]:
    """Euclidean norm of each client's update, (C,)."""
    anchored = rule.reply_kind == "weights"
    squares = [
        torch.linalg.vector_norm((x - model[k] if anchored else x).reshape(len(x), -1), dim=1)
        for k, x in replies.items()
        if x.is_floating_point()
    ]
    norms: list[float] = torch.linalg.vector_norm(torch.stack(squares), dim=0).tolist() if squares else []
    return norms
