"""Which engine is chosen for a model on a device."""

import pytest
from torch import nn

from fl_sim.engines.choose import choose


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
