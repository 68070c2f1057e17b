"""The vmap engine: a block as one batched model, by ``torch.func.vmap`` over clients (He, Zou: functorch, 2021).

The local rule is the same function that the loop runs; clients of unequal size are padded with masks.

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
from fl_sim.blocks.wave import models_of
from fl_sim.engines.loop import run_loop
from fl_sim.engines.outcome import Outcome
from fl_sim.kernels.cuda_graphs import Function, GraphRecorder
from fl_sim.kernels.low_rank import formed
from fl_sim.learning.returned import call
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree

RuleWith = Callable[[Mapping[str, object]], tuple[LocalRule, Local]]
"""``the settings in which clients differ -> (rule, local settings)`` of one client."""


def run_vmap(block: Block, model: Tree, learner: Learner, chunk: int = 0) -> Iterator[Outcome]:
    """Run a block's clients ``chunk`` at a time (0: all at once) as one batched model.

    Clients of a chunk whose states have other names, shapes or dtypes are batched apart. Where a chunk raises, its
    clients run one by one on the loop, to find the one that raises; the outcome has a note.
    """
    size = chunk or len(block.jobs)
    chunks = (block.jobs[start : start + size] for start in range(0, len(block.jobs), size))
    for jobs in ([whole[i] for i in group] for whole in chunks for group in by_state(whole)):
        try:
            outcome = _run(block, jobs, model, learner)
        except (torch.OutOfMemoryError, KeyboardInterrupt):
            raise  # run_plan runs a block for which memory ran out again in smaller chunks
        except BaseException as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            note = f"vmap raised {type(error).__name__}: {reason}; its clients ran on the loop"
            for outcome in run_loop(replace(block, jobs=jobs), model, learner):
                outcome.note, note = note, ""
                yield outcome
        else:
            yield outcome


def by_state(jobs: Sequence[Job]) -> list[list[int]]:
    """The indices of clients whose states can be stacked, in the order of first clients.

    Their names are equal and in one order, which a rule may depend on; so are shapes and dtypes.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, job in enumerate(jobs):
        form = tuple((name, x.shape, x.dtype) for name, x in job.state.items())
        groups.setdefault(form, []).append(i)
    return list(groups.values())


def _run(block: Block, jobs: Sequence[Job], model: Tree, learner: Learner) -> Outcome:
    starts, axis = models_of(model, [job.launch for job in jobs])
    rates = [block.local_of(job).lr for job in jobs] if block.rates else []
    varying = {"lr": torch.tensor(rates, dtype=learner.loss.dtype, device=learner.loss.device)} if rates else {}

    def rule_with(numbers: Mapping[str, Any]) -> tuple[LocalRule, Local]:
        return block.rule, replace(block.local, **numbers) if numbers else block.local

    result = train_clients(jobs, starts, axis, learner, rule_with, varying)
    places = sum(p.mask.numel() for p in result.streams.values())
    return Outcome(
        jobs,
        result.replies,
        result.states,
        result.metrics,
        places=places,
        samples=sum(p.samples for p in result.streams.values()),
        note=result.note,
    )


class TrainedClients(NamedTuple):
    """The results of a chunk, each leaf (C, ...), and its padded batches."""

    replies: Tree
    states: Tree
    metrics: Tree
    streams: Mapping[str, Padded]
    """The padded batches by the stream's name."""
    note: str = ""
    """Why no CUDA graph could be used; empty where one could be, or where this reason was reported before."""


def train_clients(
    jobs: Sequence[Job],
    model: Tree,
    model_axis: int | None,
    learner: Learner,
    rule_with: RuleWith,
    varying: Mapping[str, Tensor],
) -> TrainedClients:
    """Train clients as one batched model; on a GPU, a chunk of a kind that occurred before is replayed as a CUDA graph.

    Parameters
    ----------
    jobs : Sequence[Job]
        The clients (C); their states have equal names, shapes and dtypes, see ``by_state``.
    model : Tree
        The model from which clients start: leaves (...) where ``model_axis`` is None, else (C, ...).
    model_axis : int | None
        0: each client has a model of its own; None: all have the same.
    learner : Learner
        Samples, loss and rules.
    rule_with : RuleWith
        Rule and local settings for one client's values of ``varying``.
    varying : Mapping[str, Tensor]
        The settings in which clients differ, each (C,); empty where there are none.
    """
    loss, device = learner.loss.under_vmap(), learner.loss.device
    streams = {name: pad(jobs, name, learner.partition, device) for name in jobs[0].streams}
    states = tree.stack([job.state for job in jobs]) if jobs[0].state else {}

    # The arguments are tensors, not dicts: vmap would flatten nested dicts, which takes as long as a training step.
    def one_client(*tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        start, state, numbers = ({k: next(remaining) for k in names} for names in (model, states, varying))
        batches = {
            name: padded_batches(learner.data, next(remaining), next(remaining), next(remaining), shape=p)
            for name, p in streams.items()
        }
        rule, local = rule_with(numbers)
        results = call(rule, start, state, batches, loss, local)
        output_names[:] = [list(result) for result in results]
        return tuple(formed(x) for result in results for x in result.values())

    output_names: list[list[str]] = []
    arrays = [x for p in streams.values() for x in (p.index, p.mask, p.words)]
    model = tree.clone(model) if model_axis is None else model
    inputs = [*model.values(), *states.values(), *varying.values(), *arrays]
    in_dims = (*(model_axis for _ in model), *(0 for _ in inputs[len(model) :]))
    function = torch.func.vmap(one_client, in_dims=in_dims, randomness="error")
    if learner.recorder.supports(device):
        first = rule_with({k: float(x[0]) for k, x in varying.items()})
        kind = _kind(*first, streams, inputs, [*model, *states, *varying])
        outputs, note = _recorded(learner.recorder, first[0], kind, function, inputs, output_names)
    else:
        outputs, note = function(*inputs), ""
    remaining = iter(outputs)
    replies, new_states, metrics = ({k: next(remaining).detach() for k in names} for names in output_names)
    return TrainedClients(replies, new_states, metrics, streams, note)


def _recorded(
    recorder: GraphRecorder,
    rule: LocalRule,
    kind: Hashable,
    function: Function,
    inputs: Sequence[Tensor],
    output_names: list[list[str]],
) -> tuple[tuple[Tensor, ...], str]:
    """``(function(*inputs), note)``, computed by a CUDA graph where possible; the note says once why it is not."""
    reason = ""
    if state := stateful(rule):
        outputs = function(*inputs)
        reason = f"{type(rule).__name__} holds {', '.join(state)}, more than plain numbers"
    else:
        outputs, reason = recorder(kind, function, inputs, output_names), recorder.refused
    return outputs, recorder.once(f"blocks run without CUDA graphs: {reason}") if reason else ""


def stateful(rule: LocalRule) -> list[str]:
    """The names of a rule's attributes that are no plain numbers or strings: CUDA graphs support no such rule."""
    return sorted(name for name, value in vars(rule).items() if not isinstance(value, int | float | str | None))


def _kind(
    rule: LocalRule, local: Local, streams: Mapping[str, Padded], inputs: Sequence[Tensor], names: Sequence[str]
) -> tuple[object, ...]:
    """A key that is equal for chunks that run the same kernels; hashable where the rule holds plain numbers only."""
    numbers, shapes = tuple(vars(rule).items()), tuple((x.shape, x.dtype) for x in inputs)
    return type(rule), numbers, local, tuple((k, p.full, p.active) for k, p in streams.items()), shapes, tuple(names)
