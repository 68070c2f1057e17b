"""Coding of a client's update: error feedback and its limit, schedules, bytes, and what is kept in a client's state."""

import pytest
import torch
from torch import Tensor

from fl_sim import tree
from fl_sim.wire.codec import Codec, Coding, Keys, factor_at, split_state, with_kept
from strategies.codecs.int8 import Int8
from strategies.codecs.topk import TopK


def solved(k: int, q: float, rounds: int) -> float:
    """Distance to the solution, relative to that at the start, of one client on a quadratic in 20 dimensions.

    An uncompressed round removes the share q of what is missing: d = q (y - w). One coordinate of k is sent.
    """
    y = torch.linspace(1.0, 2.0, 20, dtype=torch.float64)
    w, state = torch.zeros_like(y), dict[str, Tensor]()
    coding = Coding(TopK(1 / k), feedback=True)
    for number in range(rounds):
        sent = coding.send({"": {"w": q * (y - w)}}, state, Keys(number, 0), with_code=False)
        w, state = w + sent.reply["w"], sent.state
    return float((w - y).norm() / y.norm())


@pytest.mark.parametrize(("k", "q"), [(1, 0.5), (2, 0.25), (5, 0.1), (10, 0.05)])
def test_feedback_solves_a_quadratic_while_k_q_is_at_most_a_half(k: int, q: float) -> None:
    """A coordinate is sent every k rounds or so. Until then its error gathers to about k q (y - w), which is a step of
    k q <= 1/2 at once. Uncompressed (1 - q)^n is left: 1e-4 needs 9.2 / q rounds; twice as many are given."""
    assert solved(k, q, round(2 * 9.2 / q)) < 1e-4


def test_feedback_diverges_where_a_round_removes_more_than_the_codec_lets_through() -> None:
    """k q = 5: what is sent at once is about 5 (y - w), after which y - w is 4 times as large on the other side."""
    assert solved(10, 0.5, 200) > 1e3


def test_without_feedback_what_is_never_among_the_largest_is_never_sent() -> None:
    """Two clients whose updates (3, 1) and (-3, 1) are constant: with a share of 1/2 the mean of what is sent is 0."""
    reads = {}
    for feedback in (False, True):
        total, states = torch.zeros(2), [dict[str, Tensor](), dict[str, Tensor]()]
        for number in range(8):
            for c, sign in enumerate((1.0, -1.0)):
                update = {"": {"w": torch.tensor([3.0 * sign, 1.0])}}
                sent = Coding(TopK(0.5), feedback).send(update, states[c], Keys(number, c), False)
                states[c], total = sent.state, total + sent.reply["w"] / 2
        reads[feedback] = total.tolist()
    # with feedback the second coordinate is sent when it is 4, after three rounds in which the first was
    assert reads == {False: [0.0, 0.0], True: [0.0, 8.0]}


def test_a_schedule_goes_from_the_first_to_the_last_factor_in_equal_ratios() -> None:
    assert [factor_at("16..1", number, 5) for number in range(1, 7)] == [16.0, 8.0, 4.0, 2.0, 1.0, 1.0]
    assert factor_at("16..1", 1, 1) == 16.0 and factor_at("1..4", 3, 3) == 4.0 and factor_at("2.5..2.5", 2, 3) == 2.5
    for text in ("16", "16..", "..1", "16..0.5", "a..b", "16..inf", "nan..1", ""):
        with pytest.raises(ValueError, match=r"codec.schedule = .* must be two factors of at least 1, such as 16..1"):
            factor_at(text, 1, 5)
    with pytest.raises(ValueError, match="Int8 has no factor that a schedule could change"):
        Int8().scaled(4)


FORM = {
    **{"w": torch.zeros(10, 10), "b": torch.zeros(10), "steps": torch.zeros((), dtype=torch.int64)},
    **{"mean": torch.zeros(10), "control::w": torch.zeros(10, 10), "control::b": torch.zeros(10)},
}


@pytest.mark.parametrize(
    ("trees", "size"),
    [
        # 110 of the model: 110 bytes and two scales of 4; whole: 8 of the count, 40 of the mean, 440 of the tree
        ((), 110 + 8 + 8 + 40 + 440),
        (("control",), 2 * (110 + 8) + 8 + 40),
    ],
)
def test_the_bytes_of_a_reply_are_those_of_its_codes_and_of_what_is_sent_whole(
    trees: tuple[str, ...], size: int
) -> None:
    coding = Coding(Int8(), False, trees)
    parts = coding.parts(["w", "b"], FORM)
    assert {name: list(part) for name, part in parts.items()} == {
        **{"": ["w", "b"]},
        **({"control": ["control::w", "control::b"]} if trees else {}),
    }
    assert coding.num_bytes(["w", "b"], FORM) == size
    sent = coding.send(parts, {}, Keys(1, 2), with_code=True)
    whole = {k: x for k, x in FORM.items() if not any(k in part for part in parts.values())}
    assert tree.num_bytes(sent.code) + tree.num_bytes(whole) == size
    read, why = coding.read(sent.code, parts, 1)
    assert why == "" and tree.digest(read) == tree.digest(sent.reply)


def test_parts_keep_their_errors_by_themselves() -> None:
    """A tree has leaves of the same names as the model; each part has its own error."""
    coding, state = Coding(TopK(0.5), True, ("control",)), dict[str, Tensor]()
    updates = {"": {"w": torch.tensor([2.0, 1.0])}, "control": {"control::w": torch.tensor([3.0, 5.0])}}
    sent = coding.send(updates, state, Keys(1, 2), with_code=True)
    kept = {k: x.tolist() for k, x in sent.state.items()}
    assert kept == {"|error::w": [0.0, 1.0], "control|error::control::w": [3.0, 0.0]}
    own, again = split_state(with_kept({"of the rule": torch.ones(1)}, sent.state))
    assert list(own) == ["of the rule"] and tree.digest(again) == tree.digest(sent.state)


def test_an_error_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the client keeps an error of v: of another model"):
        Coding(TopK(0.5), True).send({"": {"w": torch.ones(2)}}, {"|error::v": torch.ones(2)}, Keys(1, 2), False)


def test_a_code_with_tensors_of_unknown_parts_is_refused() -> None:
    coding, parts = Coding(TopK(0.5), True), {"": {"w": torch.tensor([2.0, 1.0])}}
    sent = coding.send(parts, {}, Keys(1, 2), with_code=True)
    bad = {**sent.code, "other|values": torch.ones(1)}
    assert coding.read(bad, parts, 1) == ({}, "a code of 3 tensors, of which 2 are known")
    assert coding.read({}, parts, 1)[1] == "a code with nothing; it must have indices, values"


def test_a_codec_of_ones_own_needs_three_methods() -> None:
    assert Codec.__abstractmethods__ == {"form", "encode", "decode"}
