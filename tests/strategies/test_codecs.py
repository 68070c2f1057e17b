"""What holds for every codec: a closed form of its size, and a code that both sides read alike."""

import re

import pytest
import torch

from fl_sim import registry, tree
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Coding, Keys

CODECS = registry.names("strategies.codecs", "codec")
KEYS = Keys(shared=11, own=7)


def normal(seed: int, **shapes: tuple[int, ...]) -> Tree:
    """Leaves of normal numbers in float32."""
    own = torch.Generator().manual_seed(seed)
    return {k: torch.randn(shape, generator=own) for k, shape in shapes.items()}


UPDATES = {
    "a small network": normal(0, kernel=(6, 3, 3, 3), bias=(6,), matrix=(10, 24), head=(10,)),
    "one number": normal(1, w=()),
    "one leaf of one": normal(2, w=(1,)),
    "zeros": {"w": torch.zeros(8, 9), "b": torch.zeros(3)},
    "in float64": tree.to(normal(3, matrix=(12, 9), bias=(5,)), torch.float64),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("name", CODECS)
def test_a_code_has_the_size_and_form_of_its_formula_and_is_read_as_it_was_meant(name: str, update: Tree) -> None:
    """In three rounds, each with what the codec keeps: ``transmit`` is ``decode`` of ``encode``, bit for bit."""
    codec: Codec = CODECS[name]()
    state: Tree = {}
    for server_round in range(1, 4):
        now, before, keys = codec.at(server_round, 3), tree.digest(update), Keys(11 + server_round, 7 * server_round)
        code, kept = now.encode(update, state, keys)
        form = now.form({k: torch.empty_like(x) for k, x in update.items()})
        assert {k: (tuple(x.shape), x.dtype) for k, x in code.items()} == {k: tuple(f) for k, f in form.items()}
        assert tree.num_bytes(code) == sum(f.num_bytes for f in form.values())
        assert now.problem(code, update) == ""
        read = now.decode(code, update, keys.shared)
        assert {k: (x.shape, x.dtype) for k, x in read.items()} == {k: (x.shape, x.dtype) for k, x in update.items()}
        assert list(read) == list(update) and all(bool(torch.isfinite(x).all()) for x in read.values())
        straight, straight_kept = now.transmit(update, state, keys)
        assert tree.digest(straight) == tree.digest(read) and tree.digest(straight_kept) == tree.digest(kept)
        assert tree.digest(update) == before
        state = kept


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_known_by_its_numbers_alone(name: str) -> None:
    """Both sides build it from the message's numbers: equal numbers, equal codec, in every round."""
    one, other = CODECS[name](), CODECS[name]()
    assert one == other and one.at(3, 10) == other.at(3, 10)


@pytest.mark.parametrize("name", CODECS)
def test_zeros_are_read_as_zeros_and_the_codec_goes_on_after_them(name: str) -> None:
    """A client without a change is no trap: the next update is read again, at least in part."""
    codec: Codec = CODECS[name]()
    zeros, update = UPDATES["zeros"], normal(4, w=(8, 9), b=(3,))
    read, kept = codec.transmit(zeros, {}, KEYS)
    assert not any(x.any() for x in read.values())
    read, _ = codec.transmit(update, kept, Keys(12, 8))
    assert float(sum((read[k] * x).sum() for k, x in update.items())) > 0


@pytest.mark.parametrize("name", [k for k, c in CODECS.items() if c.biased and not c.keeps_error])
def test_with_feedback_nothing_is_lost(name: str) -> None:
    """What was read plus what is kept is what was sent in all rounds: sum of reads + error = sum of updates."""
    coding, state = Coding(CODECS[name](), True), dict[str, torch.Tensor]()
    updates = [tree.to(normal(n, kernel=(4, 2, 3, 3), matrix=(9, 8), b=(5,)), torch.float64) for n in range(4)]
    total, read = tree.zeros(updates[0]), tree.zeros(updates[0])
    for n, update in enumerate(updates):
        sent = coding.send({"": update}, state, Keys(n, 100 + n), with_code=bool(n % 2))
        state, total, read = sent.state, tree.add(total, update), tree.add(read, sent.reply)
    error = {k: state[f"|error::{k}"] for k in total}
    for k, x in total.items():
        torch.testing.assert_close(read[k] + error[k], x, rtol=0, atol=1e-12)
    assert float(tree.norm(error)) > 0.0 or name == "fp16"


BAD = {
    "a tensor is missing": (lambda code: code.popitem(), "must have"),
    "one too many": (lambda code: code.update(more=torch.zeros(1)), "a code with .*more"),
    "another dtype": (
        lambda code: code.update({next(iter(code)): next(iter(code.values())).to(torch.int64)}),
        "torch.int64, must be",
    ),
    "another shape": (
        lambda code: code.update({next(iter(code)): next(iter(code.values())).reshape(-1).repeat(2)}),
        r"is \(.*must be",
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", CODECS)
def test_a_code_of_another_form_is_refused(name: str, bad: str) -> None:
    codec: Codec = CODECS[name]()
    code = dict(codec.encode(UPDATES["a small network"], {}, KEYS)[0])
    change, why = BAD[bad]
    change(code)
    problem = codec.problem(code, UPDATES["a small network"])
    assert re.search(why, problem), problem


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", CODECS)
def test_no_number_of_a_code_may_be_infinite(name: str, value: float) -> None:
    codec: Codec = CODECS[name]()
    code, _ = codec.encode(UPDATES["a small network"], {}, KEYS)
    for k in [k for k, x in code.items() if x.is_floating_point()]:
        bad = {**code, k: torch.full_like(code[k], value)}
        assert codec.problem(bad, UPDATES["a small network"]) == f"code: NaN or infinity in {k}"
