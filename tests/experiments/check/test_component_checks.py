"""Every partition, task and model of this project keeps its contract; checks of partitions and models detect faults."""

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.check import OF_KIND, Target, component_checks, targets_of, task_checks
from experiments.config.choices import PACKAGES
from fl_sim import Partition, Task, registry, rng
from fl_sim.population.partition import Resampled
from fl_sim.registry import offer

SLOW = {"resnet18"}
"""Models that a quick run leaves out."""


def cases(kind: str) -> list[Any]:
    """(target, check) of all components of this project, except tasks that read a data folder."""
    found = []
    for name, component in registry.names(PACKAGES[kind], kind).items():
        if kind == "task" and {"data_dir", "path"} & set(inspect.signature(component).parameters):
            continue
        marks = [pytest.mark.slow] if name in SLOW else []
        for target in targets_of(kind, name, component):
            label = target.name.replace("'", "")
            found += [
                pytest.param(target, check, id=f"{label}-{check.__name__.removeprefix('check_')}", marks=marks)
                for check in OF_KIND[kind]
            ]
    return found


@pytest.mark.parametrize("target, check", [*cases("partition"), *cases("model"), *cases("task")])
def test_contract(target: Target, check: Callable[[Any], None]) -> None:
    check(target.make)


@pytest.mark.slow
@pytest.mark.parametrize("check", task_checks.TASK_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_contract_of_real_data(name: str, check: Callable[[Any], None], real_data: Path) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"{real_data} has no {name}")
    check(lambda: registry.find(PACKAGES["task"], "task", name)(data_dir=str(real_data)))


def cut(order: np.ndarray, clients: int) -> Partition:
    return Partition.of(np.array_split(order, clients))


def loses_one(task: Task, clients: int, seed: int) -> Partition:
    return cut(rng.permutation(seed, task.num_train)[1:], clients)


def leaves_one_empty(task: Task, clients: int, seed: int) -> Partition:
    return Partition.of([*np.array_split(rng.permutation(seed, task.num_train), clients - 1), np.empty(0, int)])


def too_many(task: Task, clients: int, seed: int) -> Partition:
    return cut(rng.permutation(seed, task.num_train), clients + 1)


class Restless(Resampled):
    def client(self, c: int) -> np.ndarray:
        return np.frombuffer(os.urandom(self.per_client), np.uint8).astype(np.int64)


def restless(task: Task, clients: int, seed: int) -> Partition:
    return Restless(task.num_train, clients, 5, seed)


class Miscounts(Resampled):
    def size_counts(self, first: int | None = None) -> np.ndarray:
        return super().size_counts(first) + 1


def miscounts(task: Task, clients: int, seed: int) -> Partition:
    return Miscounts(task.num_train, clients, 5, seed)


class SharesInSecret(Resampled):
    exclusive = True


def shares_in_secret(task: Task, clients: int, seed: int) -> Partition:
    return SharesInSecret(task.num_train, clients, 5, seed)


class Leaks(Resampled):
    def hold_out(self, share: float, seed: int) -> Resampled:
        return replace(super().hold_out(share, seed), order=np.arange(self.samples) % (self.samples // 2))


def leaks(task: Task, clients: int, seed: int) -> Partition:
    return Leaks(task.num_train, clients, 5, seed)


def unkeyed(task: Task, clients: int, seed: int) -> Partition:
    return cut(np.frombuffer(os.urandom(8 * task.num_train), np.int64).argsort(), clients)


def seedless(task: Task, clients: int, seed: int) -> Partition:
    return cut(np.arange(task.num_train), clients)


@offer("partition", deterministic=True)
def not_deterministic(task: Task, clients: int, seed: int) -> Partition:
    return cut(rng.permutation(seed, task.num_train), clients)


@offer("partition", deterministic=True)
def in_order(task: Task, clients: int, seed: int) -> Partition:
    return cut(np.arange(task.num_train), clients)


def batchy(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """In evaluation, too, a sample's output depends on its batch."""

    class Batchy(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = super().forward(x)
            return outputs - outputs.mean(0)

    return Batchy(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs))


def wrong_size(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs + 1))


def always_alike(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    layer = nn.Linear(int(np.prod(inputs)), outputs)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def idle_layer(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    class Idle(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self[1](self[0](x))
            return output

    return Idle(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs), nn.Linear(2, 2))


def in_place(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Writes into a buffer that is no client's own: not under vmap."""

    class InPlace(nn.Sequential):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__(*layers)
            self.register_buffer("seen", torch.zeros(outputs, dtype=torch.float64), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = super().forward(x)
            self.seen.add_(output.detach().sum(0))
            return output

    return InPlace(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs))


def scales_input(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    class Scales(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x.data.mul_(0.5)
            output: Tensor = super().forward(x)
            return output

    return Scales(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs))


def at(text: str) -> str:
    """A pattern for the place of the first line of this file that holds ``text``."""
    lines = Path(__file__).read_text().splitlines()
    return rf" \(test_component_checks.py, line {next(n for n, line in enumerate(lines, 1) if text in line)}\)"


def picky(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    raise ValueError("never happy")


BROKEN: list[tuple[Any, Callable[[Any], None], str]] = [
    (loses_one, component_checks.check_every_sample_has_one_owner, "319 indices|must be each of"),
    (leaves_one_empty, component_checks.check_every_client_has_samples, "has no sample"),
    (too_many, component_checks.check_every_client_has_samples, "13 clients, 12 were asked for"),
    (restless, component_checks.check_every_client_has_samples, "differs from call to call"),
    (miscounts, component_checks.check_every_client_has_samples, r"size_counts\(None\) says"),
    (shares_in_secret, component_checks.check_every_sample_has_one_owner, "where clients share samples"),
    (leaks, component_checks.check_held_out_samples_train_nobody, "that some client holds out are trained on"),
    (unkeyed, component_checks.check_same_seed_same_partition, "two calls with one seed differ"),
    (seedless, component_checks.check_seeds_differ, "give the same"),
    (not_deterministic, component_checks.check_seeds_differ, "marked deterministic"),
    (batchy, component_checks.check_model_has_outputs, "depends on its neighbours"),
    (wrong_size, component_checks.check_model_has_outputs, r"must be \(3, 10\)"),
    (picky, component_checks.check_model_has_outputs, "can take no samples"),
    (always_alike, component_checks.check_model_is_keyed, "another seed gives the same weights"),
    (idle_layer, component_checks.check_model_learns_all, "2.weight has no gradient"),
    (in_place, component_checks.check_model_runs_batched, "in-place|inplace"),
    (
        in_place,
        component_checks.check_model_writes_into_nothing,
        r"in training mode the forward writes into seen" + at("self.seen.add_"),
    ),
    (
        scales_input,
        component_checks.check_model_writes_into_nothing,
        r"writes into its input" + at("x.data.mul_"),
    ),
]


@pytest.mark.parametrize("make, check, why", BROKEN, ids=lambda x: getattr(x, "__name__", "").removeprefix("check_"))
def test_each_check_detects_its_fault(make: Any, check: Callable[[Any], None], why: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=why):
        check(make)


def test_every_check_has_a_fault_that_it_detects() -> None:
    assert {check for _, check, _ in BROKEN} == {
        *component_checks.PARTITION_CHECKS,
        *component_checks.MODEL_CHECKS,
    }


def test_a_partition_without_draws_may_say_so() -> None:
    for check in component_checks.PARTITION_CHECKS:
        check(in_order)
