"""A block as one batched model: ``torch.func.vmap`` over clients (Horace He, Richard Zou: functorch, 2021).

The rule is the very function that the loop runs; clients of unequal size are padded with masks.

Legend: C clients of a chunk, S steps, B batch.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.padding import Padded, pad, padded_batches
from fl_sim.blocks.resolve import Block, Job
from fl_sim.engines.loop import run_loop
from fl_sim.engines.outcome import Outcome
from fl_sim.kernels.low_rank import formed
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree

Told = Callable[[Mapping[str, Any]], tuple[LocalRule, Local]]
"""``numbers in which clients differ -> (rule, settings)``."""


def run_vmap(block: Block, model: Tree, learner: Learner, chunk: int = 0) -> Iterator[Outcome]:
    """Run a block's clients ``chunk`` at a time (0: all at once) as one batched model.

    A chunk that raises is run again one by one on the loop, to name the culprit; the outcome's note says so.
    """
    size = chunk or len(block.jobs)
    for start in range(0, len(block.jobs), size):
        jobs = block.jobs[start : start + size]
        try:
            yield _run(block, jobs, model, learner)
        except torch.OutOfMemoryError:
            raise  # whoever called runs the block again in smaller chunks
        except Exception as error:
            note = f"vmap raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; its clients ran on the loop"
            for outcome in run_loop(replace(block, jobs=jobs), model, learner):
                outcome.note, note = note, ""
                yield outcome


def _run(block: Block, jobs: Sequence[Job], model: Tree, learner: Learner) -> Outcome:
    made = trained(jobs, model, None, learner, lambda own: (block.rule, block.local), {})
    places = sum(p.mask.numel() for p in made.streams.values())
    return Outcome(
        jobs,
        made.replies,
        made.states,
        made.metrics,
        places=places,
        samples=sum(p.samples for p in made.streams.values()),
    )


class Trained(NamedTuple):
    """What became of a chunk: trees with a leading axis C, and its batches."""

    replies: Tree
    states: Tree
    metrics: Tree
    streams: Mapping[str, Padded]


def trained(
    jobs: Sequence[Job], model: Tree, axis: int | None, learner: Learner, told: Told, own: Mapping[str, Tensor]
) -> Trained:
    """Train clients as one batched model; on a GPU from a graph of the kernels, where the same kind of chunk has come before.

    ``model`` is every client's (``axis`` None), or has one for each client (C, ...) (``axis`` 0). ``told`` gives the rule and its
    settings for a client whose own numbers are ``own`` (each (C,), or none).
    """
    loss, device = learner.loss.under_vmap(), learner.loss.device
    streams = {name: pad(jobs, name, learner.partition, device) for name in jobs[0].streams}
    states = tree.stack([job.state for job in jobs]) if jobs[0].state else {}

    def one(
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:  # vmap takes nested dicts apart and together again; that costs as much as a step
        given = iter(flat)
        start, state, numbers = ({k: next(given) for k in table} for table in (model, states, own))
        batches = {
            name: padded_batches(learner.data, next(given), next(given), next(given), shape=p)
            for name, p in streams.items()
        }
        rule, local = told(numbers)
        made = rule.local_update(start, state, batches, loss, local)
        names[:] = [list(table) for table in made]
        return tuple(formed(x) for tables in made for x in tables.values())

    names: list[list[str]] = []
    arrays = [x for p in streams.values() for x in (p.index, p.mask, p.words)]
    inputs = [*model.values(), *states.values(), *own.values(), *arrays]
    function = torch.func.vmap(
        one, in_dims=(*(axis for _ in model), *(0 for _ in inputs[len(model) :])), randomness="error"
    )
    kind = None
    if learner.recorder.takes(device):
        kind = _kind(*told({k: float(x[0]) for k, x in own.items()}), streams, inputs, [*model, *states, *own])
    flat = iter(function(*inputs) if kind is None else learner.recorder(kind, function, inputs, names))
    replies, new_states, metrics = ({k: next(flat).detach() for k in table} for table in names)
    return Trained(replies, new_states, metrics, streams)


def _kind(
    rule: LocalRule, local: Local, streams: Mapping[str, Padded], inputs: Sequence[Tensor], names: Sequence[str]
) -> Hashable:
    """All that fixes the kernels of a chunk besides its inputs' values; None where a rule holds more than plain numbers."""
    numbers = tuple(vars(rule).items())
    if not all(isinstance(value, int | float | str | None) for _, value in numbers):
        return None
    shapes = tuple((x.shape, x.dtype) for x in inputs)
    return type(rule), numbers, local, tuple((k, p.full, p.active) for k, p in streams.items()), shapes, tuple(names)
