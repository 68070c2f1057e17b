"""fp16 by hand: a power of two for each tensor, so that numbers of any size keep the bits of a half."""

import pytest
import torch

from fl_sim.wire.codec import Keys
from strategies.codecs.fp16 import EXPONENTS, Half

KEYS = Keys(1, 2)


def test_by_hand() -> None:
    """max = 3 < 2^2: e = 2, codes x / 4. 1 + 2^-12 is halfway between two halves of 1/4, and is rounded to the even."""
    update = {"w": torch.tensor([3.0, -1.5, 1 + 2**-12, 0.0]), "zero": torch.zeros(2)}
    code, kept = Half().encode(update, {}, KEYS)
    assert code["w"].tolist() == [0.75, -0.375, 0.25, 0.0] and code[EXPONENTS].tolist() == [2, 0] and kept == {}
    assert Half().decode(code, update, 1)["w"].tolist() == [3.0, -1.5, 1.0, 0.0]


@pytest.mark.parametrize("power", [-100, -20, 0, 20, 100])
def test_numbers_of_any_size_keep_eleven_bits(power: int) -> None:
    """Where plain halves would be zero or infinite; relative errors are at most 2^-11."""
    update = {"w": torch.linspace(0.5, 1.0, 101) * 2.0**power}
    read, _ = Half().transmit(update, {}, KEYS)
    assert float(((read["w"] - update["w"]) / update["w"]).abs().max()) <= 2**-11
    whole = {"w": torch.tensor([1.0, 2047.0]) * 2.0**power}
    assert torch.equal(Half().transmit(whole, {}, KEYS)[0]["w"], whole["w"])


@pytest.mark.parametrize("largest", [1e-44, 1e-40, 3.4e38])
def test_the_smallest_and_the_largest_numbers_of_float32(largest: float) -> None:
    """Where 2^e or 2^-e is no float32."""
    update = {"w": torch.tensor([largest, -largest / 2])}
    torch.testing.assert_close(Half().transmit(update, {}, KEYS)[0], update, rtol=2**-11, atol=1.5e-45)


def test_exponents_that_no_float_has_are_refused() -> None:
    update = {"w": torch.tensor([1.0])}
    code, _ = Half().encode(update, {}, KEYS)
    for e in (1075, -1075, 32767):
        bad = {**code, EXPONENTS: torch.tensor([e], dtype=torch.int16)}
        assert Half().problem(bad, update) == f"code: the exponent {e}, above 1074"
