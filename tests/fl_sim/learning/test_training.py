"""The local training of one client: its batches, its steps, and padding, which has no effect."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim import from_arrays, rng, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Draw, LocalRule, Metrics, Sizes, mean_metrics, passes
from fl_sim.learning.settings import Local
from fl_sim.learning.training import train
from fl_sim.tree import Tree


@given(st.integers(1, 60), st.integers(0, 20), st.integers(1, 4), st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_an_epoch_is_every_sample_once_in_batches_of_which_only_the_last_is_short(
    n: int, size: int, epochs: int, key: int
) -> None:
    batches = passes(np.arange(100, 100 + n), Local(epochs=epochs, batch_size=size), key)
    width = min(size or n, n)
    each = -(-n // width)
    assert len(batches) == epochs * each
    for number in range(epochs):
        part = batches[number * each : (number + 1) * each]
        assert sorted(np.concatenate(part)) == list(range(100, 100 + n))
        assert [len(b) for b in part[:-1]] == [width] * (each - 1) and len(part[-1]) == n - width * (each - 1)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_steps_run_over_as_many_passes_as_it_takes(n: int, size: int, steps: int) -> None:
    batches = passes(np.arange(n), Local(epochs=7, steps=steps, batch_size=size), 3)
    whole = passes(np.arange(n), Local(epochs=steps, batch_size=size), 3)
    assert len(batches) == steps and all(
        np.array_equal(a, b) for a, b in zip(batches, whole, strict=False)
    )  # epochs are ignored


def test_passes_differ_from_each_other_and_by_key_and_none_without_samples() -> None:
    batches = passes(np.arange(40), Local(epochs=2, batch_size=40), 3)
    assert not np.array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], passes(np.arange(40), Local(batch_size=40), 4)[0])
    assert passes(np.arange(0), Local(steps=5), 3) == []


def test_draws_are_keyed_by_seed_round_client_and_purpose() -> None:
    keys = {
        Draw(*numbers)(purpose)
        for numbers in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]
        for purpose in ("order", "split")
    }
    assert len(keys) == 8 and Draw(0, 1, 2)("order") == Draw(0, 1, 2)("order")


class Plain(LocalRule):
    """A rule with the default streams."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        raise NotImplementedError


def test_the_default_streams_are_passes_over_the_training_part_alone() -> None:
    streams = Plain().streams(Sizes(6, 3), Local(batch_size=4, epochs=2), Draw(0, 1, 0))
    assert [sorted(np.concatenate(streams["train"][i : i + 2])) for i in (0, 2)] == [[0, 1, 2, 3, 4, 5]] * 2


X, Y = np.random.default_rng(0).normal(size=(12, 3)), np.random.default_rng(1).integers(0, 2, 12)


def build_loss() -> Loss:
    with rng.keyed_globals(0):
        module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    return Loss(module, from_arrays(X, Y, x_test=X, y_test=Y), torch.float64)


def batch(loss: Loss, rows: list[int], padding: int = 0, active: bool | None = None) -> Batch:
    data = {k: v[rows + [0] * padding] for k, v in loss.task.train.items()}
    mask = torch.tensor([True] * len(rows) + [False] * padding) if padding else None
    return Batch(data, rng.words(0), mask, None if active is None else torch.tensor(active))


OPTIMIZERS = [
    Local(optimizer="sgd", momentum=0.9, weight_decay=0.01, clip_norm=0.4),
    Local(optimizer="adam"),
    Local(optimizer="adamw"),
]


@pytest.mark.parametrize("local", OPTIMIZERS, ids=lambda local: local.optimizer)
def test_padding_on_both_axes_changes_nothing(local: Local) -> None:
    loss = build_loss()
    plain = [batch(loss, [0, 1, 2, 3]), batch(loss, [4, 5])]
    padded = [
        batch(loss, [0, 1, 2, 3], 2, True),
        batch(loss, [4, 5], 4, True),
        batch(loss, [], 6, False),
        batch(loss, [], 6, False),
    ]
    models = [train(loss.initial(), batches, local, loss.gradient) for batches in (plain, padded)]
    for k, v in models[0][0].items():
        torch.testing.assert_close(models[1][0][k], v, rtol=0, atol=1e-14)
    assert models[0][1]["loss"].item() == pytest.approx(models[1][1]["loss"].item(), rel=1e-13)


def test_the_loss_reported_is_the_mean_over_samples_each_at_the_model_that_met_it() -> None:
    loss = build_loss()
    first, second = batch(loss, [0, 1, 2, 3, 4, 5]), batch(loss, [6, 7])
    local = Local(lr=0.5)
    middle, _ = train(loss.initial(), [first], local, loss.gradient)
    expected = (6 * loss(loss.initial(), first) + 2 * loss(middle, second)) / 8
    assert train(loss.initial(), [first, second], local, loss.gradient)[1]["loss"].item() == pytest.approx(
        expected.item(), rel=1e-13
    )


@pytest.mark.parametrize("local", OPTIMIZERS, ids=lambda local: local.optimizer)
def test_the_received_model_is_not_modified_whatever_the_number_of_steps(local: Local) -> None:
    loss = build_loss()
    for steps in range(4):
        model = loss.initial()
        before, kept = tree.digest(model), dict(model)
        new, _ = train(model, [batch(loss, [s, s + 1]) for s in range(steps)], local, loss.gradient)
        assert tree.digest(model) == before and all(model[k] is kept[k] for k in kept)
        assert (tree.digest(new) == before) == (steps == 0)


def test_no_steps_give_the_model_back_and_a_loss_of_zero() -> None:
    loss = build_loss()
    new, metrics = train(loss.initial(), [], Local(), loss.gradient)
    assert tree.digest(new) == tree.digest(loss.initial()) and metrics["loss"].item() == 0


def test_a_changed_gradient_is_what_is_followed() -> None:
    loss, local = build_loss(), Local(lr=0.25)

    def constant(model: Tree, given: Batch) -> tuple[Tree, torch.Tensor, Tree]:
        return {k: torch.ones_like(v) for k, v in model.items()}, torch.tensor(7.0), {}

    new, metrics = train(loss.initial(), [batch(loss, [0])] * 3, local, constant)
    for k, v in loss.initial().items():
        torch.testing.assert_close(new[k], v - 0.75)
    assert float(metrics["loss"]) == 7


@pytest.mark.parametrize("clip_norm, expected", [(0.0, 4.0), (1.0, 1.0), (10.0, 4.0)])
def test_the_clipped_gradient_has_that_length(clip_norm: float, expected: float) -> None:
    def four(model: Tree, given: Any) -> tuple[Tree, torch.Tensor, Tree]:
        return {"w": torch.full((4,), 2.0, dtype=torch.float64)}, torch.tensor(0.0), {}  # its norm is 4

    new, _ = train(
        {"w": torch.zeros(4, dtype=torch.float64)}, [batch(build_loss(), [0])], Local(lr=1.0, clip_norm=clip_norm), four
    )
    assert tree.norm(new).item() == pytest.approx(expected, rel=1e-5)


def test_metrics_of_several_parts_are_averaged() -> None:
    parts = [{"loss": torch.tensor(1.0), "n": torch.tensor(2.0)}, {"loss": torch.tensor(3.0), "n": torch.tensor(2.0)}]
    assert {k: float(v) for k, v in mean_metrics(parts).items()} == {"loss": 2.0, "n": 2.0}
