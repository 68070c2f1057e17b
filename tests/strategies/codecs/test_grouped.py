"""grouped by hand: means of groups that both sides draw alike; with feedback and new groups each round all is sent."""

import pytest
import torch

from fl_sim.wire.codec import Coding, Keys
from strategies.codecs.grouped import Grouped

KEYS = Keys(1, 2)


def test_fixed_groups_by_hand() -> None:
    """Neighbours in pairs: (1, 3), (5, -1), and 4 alone."""
    update = {"a": torch.tensor([1.0, 3.0, 5.0]), "b": torch.tensor([[-1.0], [4.0]])}
    code, kept = Grouped(2, fixed=True).encode(update, {}, KEYS)
    assert code["means"].tolist() == [2.0, 2.0, 4.0] and kept == {}
    read = Grouped(2, fixed=True).decode(code, update, 5)
    assert read["a"].tolist() == [2.0, 2.0, 2.0] and read["b"].tolist() == [[2.0], [4.0]]


def test_groups_are_drawn_by_the_rounds_key_alike_for_all_clients_and_cover_all_coordinates() -> None:
    """Twelve powers of 3 in groups of three: a mean tells which are its members."""
    update = {"w": 3.0 ** torch.arange(12, dtype=torch.float64)}
    read = {own: Grouped(3).transmit(update, {}, Keys(8, own))[0]["w"] for own in (1, 2)}
    assert torch.equal(read[1], read[2])
    values, counts = torch.unique(read[1], return_counts=True)
    assert counts.tolist() == [3] * 4
    for value in values.tolist():
        assert float(update["w"][read[1] == value].mean()) == pytest.approx(value, rel=1e-12)
    assert not torch.equal(read[1], Grouped(3).transmit(update, {}, Keys(9, 1))[0]["w"])


@pytest.mark.parametrize(("fixed", "rest"), [(False, 0.02), (True, 1.0)])
def test_fixed_groups_never_send_what_a_mean_hides_and_new_ones_do(fixed: bool, rest: float) -> None:
    """(1, -1, 1, -1, ...) once, then nothing more: with fixed pairs every mean is 0 for ever, and the error stays 1."""
    wave = torch.tensor([1.0, -1.0]).repeat(8).double()
    coding, state, read = Coding(Grouped(2, fixed), True), dict[str, torch.Tensor](), torch.zeros(16).double()
    for number in range(25):
        update = {"w": wave if number == 0 else torch.zeros(16).double()}
        sent = coding.send({"": update}, state, Keys(number, 0), with_code=True)
        state, read = sent.state, read + sent.reply["w"]
    lost = float((wave - read).norm() / wave.norm())
    assert lost == 1.0 if fixed else lost < rest


def test_the_last_group_may_be_smaller_and_a_group_larger_than_all() -> None:
    update = {"w": torch.arange(5.0)}
    assert Grouped(2).form(update)["means"].shape == (3,)
    read, _ = Grouped(100).transmit(update, {}, KEYS)
    assert read["w"].tolist() == [2.0] * 5
    assert Grouped().scaled(2.6) == Grouped(3) and Grouped(1).transmit(update, {}, KEYS)[0]["w"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
