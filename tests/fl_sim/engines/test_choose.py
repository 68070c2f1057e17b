"""Which engine is chosen for a model on a device."""

import pytest
from torch import nn

from fl_sim.engines.choose import CONVOLUTIONS, CONVOLUTIONS_BY_RULE, choose, worth


@pytest.mark.parametrize(
    "engine, module, device, expected",
    [
        ("loop", nn.Linear(2, 2), "cpu", "loop"),
        ("vmap", nn.Conv2d(1, 1, 3), "cpu", "vmap"),
        ("auto", nn.Linear(2, 2), "cpu", "vmap"),
        ("auto", nn.Sequential(nn.Conv2d(1, 1, 3)), "cpu", "loop"),
        ("auto", nn.Sequential(nn.Conv2d(1, 1, 3)), "cuda:0", "vmap"),
        ("vmap", nn.BatchNorm1d(2), "cpu", "loop"),
        ("auto", nn.BatchNorm1d(2), "cuda", "loop"),
        ("vmap", nn.BatchNorm1d(2, track_running_stats=False), "cpu", "loop"),  # a padded batch has other statistics
        ("vmap", nn.GroupNorm(1, 2), "cpu", "vmap"),
    ],
)
def test_the_engine_is_a_rule_of_model_and_device(engine: str, module: nn.Module, device: str, expected: str) -> None:
    choice = choose(engine, module, device)
    assert choice.name == expected
    assert bool(choice.reason) == isinstance(module, nn.BatchNorm1d)


def test_a_network_that_writes_into_buffers_trains_on_the_loop() -> None:
    for engine, device in (("vmap", "cpu"), ("auto", "cuda")):
        choice = choose(engine, nn.Linear(1, 1), device, written={"norm.running_mean"})
        assert choice.name == "loop" and "(norm.running_mean)" in choice.reason
    assert choose("loop", nn.Linear(1, 1), "cpu", written={"norm.running_mean"}).reason == ""


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="engine = 'wmap'.*auto, loop, vmap"):
        choose("wmap", nn.Linear(1, 1), "cpu")


def test_convolutions_alone_leave_the_choice_to_sizes() -> None:
    assert choose("auto", nn.Conv2d(1, 1, 3), "cpu").by_convolutions
    assert not choose("loop", nn.Conv2d(1, 1, 3), "cpu").by_convolutions
    assert not choose("auto", nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)), "cpu").by_convolutions


def test_small_convolutions_pay_and_large_ones_only_for_rules_with_derivatives_of_their_own() -> None:
    # 16 clients, W = 200 000: half of each limit. 3 + .6 * 16 = 12.6, and 1 + .375 * 16 = 7 clients at a time.
    for costs, least in ((CONVOLUTIONS, 12.6), (CONVOLUTIONS_BY_RULE, 7.0)):
        found = [worth(steps, 100, 16, 20_000, 10, costs).name for steps in (int(least * 100) - 1, int(least * 100))]
        assert found == ["loop", "vmap"]
    assert worth(6400, 100, 64, 10**9, 1, CONVOLUTIONS).name == "loop"  # however many clients train at a time
