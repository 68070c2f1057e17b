"""int8: right on average, never wrong by a step, and no draw is that of another client, round or tensor."""

import pytest
import torch

from fl_sim import tree
from fl_sim.wire.codec import Keys
from strategies.codecs.int8 import SCALES, Int8


def test_the_mean_over_draws_is_the_update_and_no_error_is_as_large_as_a_step() -> None:
    """A step is s = 2.54 / 127 = .02. The rounding has a variance of at most s^2 / 4, so that the mean of 4000 draws
    has a standard deviation of at most .02 / 2 / 63 = .00016; five of these are allowed."""
    update = {"w": torch.linspace(-2.54, 2.0, 50, dtype=torch.float64)}
    reads = torch.stack([Int8().transmit(update, {}, Keys(0, key))[0]["w"] for key in range(4000)])
    assert float((reads.mean(0) - update["w"]).abs().max()) < 5 * 0.00016
    assert float((reads - update["w"]).abs().max()) < 0.02 * (1 + 1e-6)


def test_whole_steps_are_exact_and_the_largest_is_127_steps() -> None:
    """s = 127 / 127 = 1 in float32, so that whole numbers up to 127 are sent as they are, whatever is drawn."""
    update = {"a": torch.tensor([127.0, -127.0, 0.0, 5.0]), "b": torch.zeros(3)}
    for key in range(20):
        code, _ = Int8().encode(update, {}, Keys(0, key))
        assert code["a"].tolist() == [127, -127, 0, 5] and code[SCALES].tolist() == [1.0, 0.0]
        assert tree.digest(Int8().decode(code, update, 0)) == tree.digest(update)


@pytest.mark.parametrize("largest", [1e-38, 3e-7, 1.0, 1e30])
def test_a_scale_is_rounded_up_so_that_nothing_is_cut_off(largest: float) -> None:
    """max |x| / s is at most 127 for each of 200 magnitudes, though s is a float32."""
    for part in range(200):
        x = torch.tensor([largest * (1 + part / 200)], dtype=torch.float64)
        code, _ = Int8().encode({"w": x}, {}, Keys(0, part))
        assert float(code[SCALES][0].double() * 127) >= float(x) and int(code["w"]) in (126, 127)


def test_draws_are_the_clients_own_in_a_round_and_differ_by_tensor() -> None:
    update = {"a": torch.full((500,), 0.5), "b": torch.full((500,), 0.5)}
    update = {k: torch.cat([x, torch.full((1,), 127.0)]) for k, x in update.items()}
    code, _ = Int8().encode(update, {}, Keys(0, 1))
    other, _ = Int8().encode(update, {}, Keys(0, 2))
    same, _ = Int8().encode(update, {}, Keys(9, 1))
    assert not torch.equal(code["a"], code["b"]) and not torch.equal(code["a"], other["a"])
    assert torch.equal(code["a"], same["a"])


def test_a_level_that_no_coordinate_has_and_a_negative_scale_are_refused() -> None:
    update = {"w": torch.tensor([1.0, -2.0])}
    code, _ = Int8().encode(update, {}, Keys(0, 1))
    assert Int8().problem({**code, "w": torch.tensor([-128, 1], dtype=torch.int8)}, update) == "code: -128 in w"
    assert Int8().problem({**code, SCALES: torch.tensor([-1.0])}, update) == "code: a scale below zero"
