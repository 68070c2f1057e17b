"""Who is sent how many bytes of a model, and what becomes of the change that no code has carried yet."""

import pytest
import torch

from fl_sim.grids.downwards.sent_models import CodedModels, WholeModels
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.codec import Codec
from fl_sim.wire.reference import Changes
from strategies.codecs.none import NoCodec
from strategies.codecs.topk import TopK

LARGEST = TopK(share=1 / 8)
N, WHOLE, CODE = 8, 64, 9
"""Coordinates of the coded leaf, its bytes, and those of a code of one value (8) and an index in 8 bits (1)."""
FIXED = 24
"""Bytes of the leaf that is not coded, and of a payload."""


def coded(codec: Codec = LARGEST) -> CodedModels:
    return CodedModels(Changes(codec, 100, 0), ["w"], clients=3)


def model(w: torch.Tensor) -> Tree:
    return {"w": w, "statistic": torch.zeros(2, dtype=torch.float64)}


def begun(sent: WholeModels, w: torch.Tensor, server_round: int) -> Tree:
    return records.decode(sent.begin(model(w), records.encode(model(w)), server_round))


def test_bytes_by_the_rounds_that_a_client_has_missed() -> None:
    """Client 0 trains in each round, client 1 in rounds 1 and 4, client 2 in round 9 alone; round 3 loses client 0."""
    sent, w = coded(), torch.arange(float(N), dtype=torch.float64)

    def bytes_of(server_round: int) -> list[int]:
        begun(sent, w * server_round, server_round)
        return [sent.num_bytes(c, WHOLE + FIXED) - FIXED for c in range(3)]

    assert bytes_of(1) == [WHOLE] * 3
    sent.answered([0, 1], [])
    assert bytes_of(2) == [CODE, CODE, WHOLE]
    sent.answered([0], [])
    assert bytes_of(3) == [CODE, 2 * CODE, WHOLE]
    sent.answered([0], lost=[0])
    assert bytes_of(4) == [WHOLE, 3 * CODE, WHOLE]
    sent.answered([0, 1], [])
    assert [bytes_of(t) for t in range(5, 12)] == [
        *([min(n * CODE, WHOLE)] * 2 + [WHOLE] for n in range(1, 8)),
    ]  # 7 codes are 63 bytes
    assert bytes_of(12) == [WHOLE] * 3 and len(sent.missed) == 8


def test_the_servers_step_from_the_reference_model_is_taken_from_the_global_one() -> None:
    """Round 1: w = r = 0. Its step gives (4, 1, 0 ..); of that, round 2 sends 4, so that r = (4, 0, 0 ..), and w - r
    has the 1. A step from r by -(1, 1, 0 ..) gives (3, -1, 0 ..), and w must become (3, 0, 0 ..)."""
    sent = coded()
    assert torch.equal(begun(sent, torch.zeros(N, dtype=torch.float64), 1)["w"], torch.zeros(N))
    w = torch.tensor([4.0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    arrays = records.encode(model(w))
    assert sent.stepped(arrays) is arrays  # nothing is missing in round 1
    r = begun(sent, w, 2)["w"]
    assert r.tolist() == [4, 0, 0, 0, 0, 0, 0, 0]
    step = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    new = records.decode(sent.stepped(records.encode({"w": r - step, "statistic": torch.ones(2)})))
    assert new["w"].tolist() == [3, 0, 0, 0, 0, 0, 0, 0] and new["statistic"].tolist() == [1, 1]


def test_it_converges_on_a_quadratic() -> None:
    """w <- w - q (r - a): each round removes q = 1/32 of the error, a code of 1 of 8 coordinates lets k = 8 through."""
    sent, goal = coded(), torch.arange(1.0, N + 1, dtype=torch.float64)
    w = torch.zeros(N, dtype=torch.float64)
    for server_round in range(1, 600):
        r = begun(sent, w, server_round)["w"]
        w = records.decode(sent.stepped(records.encode(model(r - (r - goal) / 32))))["w"]
    assert float((w - goal).norm()) < 1e-4 and float((r - goal).norm()) < 1e-4


def test_a_code_that_is_no_smaller_than_the_model_is_not_used() -> None:
    sent, draws = coded(NoCodec()), torch.Generator().manual_seed(0)  # r + (w - r) of random numbers is not w
    for server_round in (1, 2):
        w = torch.randn(N, generator=draws, dtype=torch.float64)
        assert torch.equal(begun(sent, w, server_round)["w"], w)
        assert sent.num_bytes(0, WHOLE) == WHOLE
        sent.answered([0], [])


@pytest.mark.parametrize("keeps", [False, True])
def test_a_checkpoint_holds_all_of_it(keeps: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    ws = [torch.randn(N, generator=draws, dtype=torch.float64) for _ in range(4)]
    whole, resumed = coded(), coded()
    whole.keeps_codes = resumed.keeps_codes = keeps
    for server_round, w in enumerate(ws[:3], start=1):
        begun(whole, w, server_round)
        whole.answered([0, 1] if server_round < 3 else [1], [1] if server_round == 2 else [])
    assert dict(resumed.restored({"velocity": 1, **whole.state()})) == {"velocity": 1}
    assert sorted(resumed.codes) == ([2, 3] if keeps else [])
    assert torch.equal(begun(whole, ws[3], 4)["w"], begun(resumed, ws[3], 4)["w"])
    assert [whole.num_bytes(c, WHOLE) for c in range(3)] == [resumed.num_bytes(c, WHOLE) for c in range(3)]
    assert WholeModels().restored({"velocity": 1, **whole.state()}) == {"velocity": 1} and not coded().state()
