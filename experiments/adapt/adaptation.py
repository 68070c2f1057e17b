"""Adaptation of a model to episodes: plain steps on support, and loss and metrics on query after each.

Legend: S samples of support, Q of query.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from experiments.adapt.episodes import Episode, samples
from fl_sim import Local, LocalRule, Loss, optim, rng
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Batch
from fl_sim.learning.networks.queries_alone import BesideSupport
from fl_sim.tree import Tree


@dataclass(frozen=True)
class How:
    """How episodes are adapted to."""

    shots: tuple[int, ...]
    """Samples of each class to adapt on; in a regression samples."""
    steps: tuple[int, ...]
    """Numbers of steps after which the model is measured, ascending."""
    lr: float
    optimizer: Literal["sgd", "adam"]
    """Without momentum and decay."""
    queries: int = 0
    """Most query samples of a class; 0: all that are left."""
    alone: bool = False
    """See ``measured``."""


Own = Callable[[Tree, Batch, int], Tree]
"""``(the model at step 0, support, steps) -> the adapted model``."""
Start = Callable[[Tree, Batch], Tree]
"""``(the global model, support) -> the model from which an episode's steps start``."""


def curve(
    loss: Loss,
    start: Tree,
    support: Tree,
    query: Tree,
    steps: Sequence[int],
    lr: float,
    optimizer: str,
    alone: bool,
    own: Own | None = None,
) -> list[dict[str, float]]:
    """Loss and metrics on query after each number of ``steps``, ascending: each step is one on all of support.

    ``alone`` : see ``measured``. ``own`` : the algorithm's own way to adapt.

    Raises ConfigError where a number is NaN or infinite.
    """
    model, state, found, done = start, optim.State(), list[dict[str, float]](), 0
    words, rates = rng.words(rng.key(0, "adapt")).to(loss.device), optim.Rates(lr)
    for wanted in steps:
        if own is not None:
            model = own(start, Batch(support, words), wanted)
        for step in range(done, wanted if own is None else done):
            grads, _, buffers = loss.gradient(model, Batch(support, words))
            params, state = optim.RULES[optimizer]({k: model[k] for k in grads}, grads, state, step, rates)
            model = {**model, **buffers, **params}
        done = wanted
        found.append(measured(loss, model, support, query, alone))
        if not np.isfinite(list(found[-1].values())).all():
            raise ConfigError(
                f"lr = {lr:g}: the loss is {found[-1]['loss']} after {wanted} steps; choose a smaller rate"
            )
    return found


def measured(loss: Loss, model: Tree, support: Tree, query: Tree, alone: bool) -> dict[str, float]:
    """Mean loss and metrics on query.

    ``alone`` : for networks that normalise by the batch in evaluation too: each query goes through the network with the
    support batch alone (not transductive), instead of with all others.
    """
    words = rng.words(0).to(loss.device)
    judge = BesideSupport(loss, Batch(support, words)) if alone else loss
    with torch.no_grad():
        return {k: float(v) for k, v in judge.metrics(model, Batch(query, words)).items()}


def start_of(rule: object, loss: Loss) -> Start:
    """The client's own model as the run's algorithm makes it of support (``own_model``); else the global model."""
    if not isinstance(rule, LocalRule) or type(rule).own_model is LocalRule.own_model:
        return lambda model, support: model
    return lambda model, support: rule.own_model(model, rule.initial_state(model), [support], loss)


def own_steps(rule: object, loss: Loss, payload: Mapping[str, Tree], how: How) -> Own | None:
    """The way in which the run's algorithm adapts (``adapt``); None where that is plain training.

    ``payload`` : what the server sends beside the model.
    """
    if not isinstance(rule, LocalRule) or type(rule).adapt is LocalRule.adapt:
        return None

    def adapted(model: Tree, support: Batch, steps: int) -> Tree:
        if not steps:
            return model
        batches, local = {"train": [support] * steps, "own": [support]}, Local(lr=how.lr, optimizer=how.optimizer)
        return rule.adapt(model, payload, rule.initial_state(model), batches, loss, replace(local, steps=steps))

    return adapted


def curves(
    loss: Loss, model: Tree, start: Start, episodes: Sequence[Episode], how: How, own: Own | None = None
) -> list[dict[str, float | int | str]]:
    """The rows of adapt.csv: for each number of shots and of steps the means over episodes.

    Raises ConfigError where an episode has no sample for support or query.
    """
    rows: list[dict[str, float | int | str]] = []
    for shots in how.shots:
        each, sizes = [], []
        for episode in episodes:
            places = episode.parts(shots, max(how.shots), how.queries)
            if not all(map(len, places)):
                raise ConfigError(f"{episode.name} has {len(episode.rows)} samples; it needs 2 of one class at least")
            support, query = (
                {k: v.to(loss.device) for k, v in samples(loss.task, episode, own).items()} for own in places
            )
            first = start(model, Batch(support, rng.words(0).to(loss.device)))
            each.append(curve(loss, first, support, query, how.steps, how.lr, how.optimizer, how.alone, own))
            sizes.append([len(own) for own in places])
        taken, judged = (float(size) for size in np.mean(sizes, axis=0))
        for s, steps in enumerate(how.steps):
            row: dict[str, float | int | str] = {"shots": shots, "steps": steps, "episodes": len(episodes)}
            row |= {"support": taken, "query": judged, "queries": "alone" if how.alone else "together"}
            for name in each[0][s]:
                values = np.array([one[s][name] for one in each])
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                row |= {name: float(values.mean()), f"{name}_se": float(error)}
            rows.append(row)
    return rows
