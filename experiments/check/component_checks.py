"""The contract of partitions and models as checks that raise AssertionError with a reason.

``python -m experiments.check FILE`` runs them on the components of a user's own file, the tests on all of this
project's.

Legend: N samples, C clients, B batch, K outputs.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.check.places import written_by
from fl_sim import Partition, Task, from_arrays, rng, tree
from fl_sim.engines.choose import choose
from fl_sim.learning.loss import Batch, Loss

MakePartition = Callable[..., Partition]
MakeTask = Callable[..., Task]
MakeModel = Callable[..., nn.Module]
CLIENTS = 12
"""Number of clients that every partition must accept."""
SHAPES = [((3, 16, 16), 10), ((3, 32, 32), 10), ((1, 28, 28), 10), ((6,), 3), ((1,), 1)]
"""(shape of one sample, K): a model is checked with the first one that it accepts."""


@functools.cache
def mixed() -> Task:
    """A task of 400 samples in 10 classes of unequal size, from 40 natural clients."""
    draw = rng.generator(rng.key(0, "contract-partition"))
    x, y = draw.normal(size=(400, 3)), (10 * draw.random(400) ** 1.5).astype(np.int64)
    return from_arrays(x, y, clients=np.arange(400) % 40, x_test=x[:10], y_test=y[:10])


def _owned(partition: Partition) -> list[list[int]]:
    """The indices of each client's samples."""
    return [partition.client(c).tolist() for c in range(len(partition))]


# Partitions ----------------------------------------------------------------------------------------------------------


def _several(make: MakePartition) -> Iterator[Partition]:
    """Partitions for 12, 3 and 40 clients; the last two only where the partition does not refuse the number."""
    for clients in (CLIENTS, 3, 40):
        try:
            partition = make(mixed(), clients, 0)
        except ValueError:
            assert clients != CLIENTS, f"refuses {CLIENTS} clients"
            continue
        assert isinstance(partition, Partition), f"returned {type(partition).__name__}, must be a fl_sim.Partition"
        assert len(partition) == clients, f"{len(partition)} clients, {clients} were asked for"
        yield partition


def check_every_client_has_samples(make: MakePartition) -> None:
    """Each client has samples, the same at every call; none are held out yet; their numbers are reported correctly."""
    n = mixed().num_train
    for partition in _several(make):
        reported = []
        for c, mine in enumerate(_owned(partition)):
            assert mine, f"client {c} of {len(partition)} has no sample"
            assert min(mine) >= 0 and max(mine) < n, (
                f"client {c} has indices {min(mine)}..{max(mine)}, must lie in 0..{n - 1}"
            )
            assert partition.client(c).dtype == np.int64 and partition.client(c).tolist() == mine, (
                f"client({c}) differs from call to call"
            )
            assert partition.sizes(c)[1] == 0, "held-out parts are the run's affair: return none"
            assert sum(partition.sizes(c)) == len(mine), (
                f"client {c} has {len(mine)} samples, sizes({c}) says {partition.sizes(c)}"
            )
            reported.append(partition.sizes(c))
        for first in (None, 2):
            expected = Counter(reported[:first])
            found = {(train, held): count for train, held, count in partition.size_counts(first).tolist()}
            assert found == expected, f"size_counts({first}) says {found}, sizes(c) of these clients {dict(expected)}"


def check_every_sample_has_one_owner(make: MakePartition) -> None:
    """Every index occurs exactly once, unless the partition has ``exclusive = False``: its clients share samples."""
    for partition in _several(make):
        found = sorted(i for mine in _owned(partition) for i in mine)
        assert not partition.exclusive or found == list(range(mixed().num_train)), (
            f"{len(found)} indices, must be each of 0..{mixed().num_train - 1} once; "
            "where clients share samples: exclusive = False"
        )


def check_held_out_samples_train_nobody(make: MakePartition) -> None:
    """With a share held out, a client of several samples has both kinds, and no client trains on held-out samples."""
    for plain in _several(make):
        trained, tested = set(), set()
        partition = plain.hold_out(0.25, 0)
        for c, mine in enumerate(_owned(partition)):
            train, held = partition.sizes(c)
            assert train + held == len(mine) == sum(plain.sizes(c)), (
                f"client {c} has {len(mine)} samples, {train} + {held} by its sizes"
            )
            assert train > 0 and (held > 0 or len(mine) < 2), (
                f"client {c} of {len(mine)} samples has {train} to train and {held} held out"
            )
            trained |= set(mine[:train])
            tested |= set(mine[train:])
        shared = trained & tested
        assert not shared, f"{len(shared)} samples that some client holds out are trained on, by it or another one"


def check_same_seed_same_partition(make: MakePartition) -> None:
    """The same seed gives the same partition."""
    assert _owned(make(mixed(), CLIENTS, 3)) == _owned(make(mixed(), CLIENTS, 3)), "two calls with one seed differ"


def check_seeds_differ(make: MakePartition) -> None:
    """Different seeds give different partitions, except of one marked ``@offer("partition", deterministic=True)``."""
    owned = [_owned(make(mixed(), CLIENTS, seed)) for seed in range(3)]
    function = make.func if isinstance(make, functools.partial) else make
    if getattr(function, "deterministic", False):
        assert owned[0] == owned[1] == owned[2], "is marked deterministic, but differs with the seed"
    else:
        assert owned[0] != owned[1] != owned[2] != owned[0], (
            'seeds 0, 1, 2 give the same; without draws: @offer("partition", deterministic=True)'
        )


# Models --------------------------------------------------------------------------------------------------------------


def _built(make: MakeModel, seed: int = 0) -> tuple[nn.Module, tuple[int, ...], int]:
    """(the model for the first shape that it accepts, that shape, K)."""
    problems = []
    for inputs, outputs in SHAPES:
        try:
            with rng.keyed_globals(seed):
                return make(inputs, outputs), inputs, outputs
        except ValueError as error:
            problems.append(f"{inputs}: {error}")
    raise AssertionError("can take no samples: " + "; ".join(problems))


def _x(make: MakeModel, draw: np.random.Generator, count: int, inputs: tuple[int, ...], outputs: int) -> np.ndarray:
    """Samples (count, inputs): normal, or of a model marked ``@offer("model", integers=True)`` classes 0..K-1."""
    shape = (count, *inputs)
    return draw.integers(0, outputs, shape) if _takes_integers(make) else draw.normal(size=shape)


def _takes_integers(make: MakeModel) -> bool:
    return bool(getattr(make.func if isinstance(make, functools.partial) else make, "integers", False))


def _loss(make: MakeModel) -> tuple[Loss, Batch]:
    """The model's loss in float64, and a batch of four random samples."""
    module, inputs, outputs = _built(make)
    draw = rng.generator(rng.key(0, "contract-model"))
    x = _x(make, draw, 4, inputs, outputs)
    size = x.shape if _takes_integers(make) else (4,)
    y = draw.integers(0, max(outputs, 2), size) if outputs > 1 else draw.normal(size=(4, 1))
    task = from_arrays(x, y, x_test=x, y_test=y, outputs=outputs)
    return Loss(module, task, torch.float64), Batch(task.train, rng.words(1))


def check_model_has_outputs(make: MakeModel) -> None:
    """(B, inputs) -> (B, K), finite, also for B = 1; in evaluation a sample's output does not depend on the others.

    A model of sequences of integers gives (B, T, K). Where BatchNorm has no running statistics, it normalises by the
    batch in evaluation too, and neither B = 1 nor a sample alone is tried.
    """
    module, inputs, outputs = _built(make)
    x = torch.from_numpy(_x(make, rng.generator(rng.key(0, "contract-model")), 3, inputs, outputs))
    x = x.float() if x.is_floating_point() else x
    expected = (*x.shape, outputs) if _takes_integers(make) else (3, outputs)
    with torch.no_grad():
        whole = module.eval()(x.clone())
    assert whole.shape == expected, f"{tuple(x.shape)} gives {tuple(whole.shape)}, must be {expected}"
    assert bool(torch.isfinite(whole).all()), "outputs are not finite"
    if any(getattr(m, "track_running_stats", None) is False for m in module.modules()):
        return
    with torch.no_grad():
        first = module(x[:1].clone())
    assert torch.allclose(whole[:1], first, atol=1e-4), "in evaluation a sample's output depends on its neighbours"


def check_model_is_keyed(make: MakeModel) -> None:
    """Weights are drawn from torch's global generator: the same for the same seed, different ones for another."""
    a, b, c = (tree.digest(_built(make, seed)[0].state_dict()) for seed in (0, 0, 1))
    assert a == b, "the same seed gives other weights"
    assert a != c, "another seed gives the same weights: all runs would start alike"


def check_model_learns_all(make: MakeModel) -> None:
    """Each trainable parameter takes part in the loss: its gradient is finite and not zero everywhere."""
    loss, batch = _loss(make)
    gradient, _, _ = loss.gradient(loss.initial(), batch)
    assert gradient, "has no trainable parameter"
    for name, g in gradient.items():
        assert bool(torch.isfinite(g).all()), f"the gradient of {name} is not finite"
        assert bool(g.any()), f"{name} has no gradient: it takes no part in the loss, or is dead at the start"


def check_model_runs_batched(make: MakeModel) -> None:
    """Under vmap the gradients equal those of one client at a time, to 1e-9; models that need the loop are exempt."""
    loss, batch = _loss(make)
    if choose("vmap", loss.training, "cpu", written=loss.writes.buffers).name != "vmap":
        return
    models = [loss.initial(), tree.scale(loss.initial(), 1.1)]

    def gradient(model: dict[str, Tensor]) -> Any:
        return loss.under_vmap().gradient(model, batch)[0]

    together = torch.func.vmap(gradient, randomness="error")(tree.stack(models))
    for c, model in enumerate(models):
        for name, g in loss.gradient(model, batch)[0].items():
            assert torch.allclose(together[name][c], g, rtol=1e-9, atol=1e-12), (
                f"the gradient of {name} under vmap is another"
            )


def check_model_writes_into_nothing(make: MakeModel) -> None:
    """The forward leaves its input and the parameters as they are; a write into its input makes every step copy it."""
    loss, batch = _loss(make)
    module, x = loss.training, batch.data["x"]
    for mode in ("training", "evaluation"):
        module.train(mode == "training")
        own = loss.buffers if mode == "training" else ()
        kept = {k: v for k, v in module.named_buffers() if k not in own}
        given = {"its input": x, **dict(module.named_parameters()), **kept}
        with torch.no_grad(), rng.keyed_globals(0):
            written = written_by(partial(module, x), given, make)
        assert not written, f"in {mode} mode the forward writes into {written}"


PARTITION_CHECKS: list[Callable[[Any], None]] = [
    check_every_client_has_samples,
    check_every_sample_has_one_owner,
    check_held_out_samples_train_nobody,
    check_same_seed_same_partition,
    check_seeds_differ,
]
MODEL_CHECKS: list[Callable[[Any], None]] = [
    check_model_has_outputs,
    check_model_is_keyed,
    check_model_learns_all,
    check_model_runs_batched,
    check_model_writes_into_nothing,
]
