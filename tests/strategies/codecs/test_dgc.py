"""dgc by hand, and what it equals where all is sent: momentum on the server, or plain averaging with masking."""

from typing import Any

import pytest
import torch

from fl_sim.wire.codec import Keys
from strategies.codecs.dgc import DGC
from strategies.fedavg import FedAvg

KEYS = Keys(1, 2)


def of(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float64)}


@pytest.mark.parametrize(("masking", "third"), [(True, [0.0, 2.75]), (False, [2.25, 0.0])])
def test_three_rounds_by_hand(masking: bool, third: list[float]) -> None:
    """m = .5, one of two coordinates is sent.

    Round 1, d = (4, 1): u = v = (4, 1); 4 is sent: v = (0, 1), u = (0, 1) masked, else (4, 1).
    Round 2, d = (0, 1): u = (0, 1.5) or (2, 1.5), v = (0, 2.5) or (2, 2.5); 2.5 is sent: v = (0, 0) or (2, 0),
    u = (0, 0) or (2, 1.5).
    Round 3, d = (-.75, 2.75) masked: u = v = d, 2.75 is sent. Else, the same d: u = (.25, 3.5), v = (2.25, 3.5).
    """
    codec, state = DGC(share=0.5, momentum=0.5, masking=masking), dict[str, torch.Tensor]()
    expected = [[4.0, 0.0], [0.0, 2.5], third if masking else [0.0, 3.5]]
    for d, sent in zip([of(4, 1), of(0, 1), of(-0.75, 2.75)], expected, strict=True):
        read, state = codec.transmit(d, state, KEYS)
        assert read["w"].tolist() == sent
    assert state["v"].tolist() == ([-0.75, 0.0] if masking else [2.25, 0.0])
    assert state["u"].tolist() == ([-0.75, 0.0] if masking else [0.25, 3.5])


def test_an_update_is_clipped_before_it_is_gathered() -> None:
    """(3, 4) has the norm 5, and is halved by a bound of 2.5; (.3, .4) stays."""
    assert DGC(share=1.0, clip=2.5).transmit(of(3, 4), {}, KEYS)[0]["w"].tolist() == [1.5, 2.0]
    assert DGC(share=1.0, clip=2.5).transmit(of(0.3, 0.4), {}, KEYS)[0]["w"].tolist() == [0.3, 0.4]


def test_the_share_of_a_warm_up_falls_as_in_the_paper() -> None:
    """Lin 2018, section 3.3: sparsity of 75 %, 93.75 %, 98.4375 %, 99.6 % and 99.9 %, here to three digits."""
    shares = [DGC(warmup=4).at(number, 100).share for number in range(1, 7)]
    assert shares == pytest.approx([0.25, 0.0625, 0.0156, 0.004, 0.001, 0.001], rel=0.02)
    assert DGC(share=0.5, warmup=4).at(1, 100).share == 0.5 and DGC().at(1, 100) == DGC()
    assert DGC().scaled(8) == DGC(share=0.125)
    with pytest.raises(ValueError, match=r"codec.warmup = 4: codec.schedule says which share is sent; leave one out"):
        DGC(warmup=4).scaled(8)


def test_what_was_kept_of_another_model_is_an_error() -> None:
    _, state = DGC().transmit(of(1, 2), {}, KEYS)
    with pytest.raises(ValueError, match="keeps 2 coordinates, and its update has 3"):
        DGC().transmit(of(1, 2, 3), state, KEYS)


def test_what_another_codec_kept_means_nothing_to_it() -> None:
    read, state = DGC(share=1.0).transmit(of(1, 2), {"q::w": torch.ones(3, 1)}, KEYS)
    assert read["w"].tolist() == [1.0, 2.0] and set(state) == {"u", "v"}


@pytest.mark.parametrize("masking", [True, False])
def test_where_all_is_sent_it_is_momentum_on_the_server_or_plain_averaging(masking: bool, targets: Any) -> None:
    """Against FedAvgM written out: w_k = w - lr (2 / K) (w - mean y_k), one step of all clients, of weights 1:2:3.

    g = w - sum_k p_k w_k;   b <- m b + g;   w <- w - b     (Hsu, Qi, Brown 2019, arXiv:1909.06335; not masked)
    """
    ys = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in (1, 2, 3)]
    codec = {"codec": "dgc", "codec.share": 1.0, "codec.momentum": 0.8, "codec.masking": masking}
    local = {"local.steps": 1, "local.lr": 0.3, "local.batch_size": 10}
    trained = targets(ys).train(FedAvg(), {**codec, **local}, rounds=7)
    w, b = torch.zeros(4).double(), torch.zeros(4).double()
    for _ in range(7):
        steps = torch.stack([n / 6 * 0.3 * (2 / 4) * (w - y.mean(0)) for n, y in zip((1, 2, 3), ys, strict=True)])
        b = (0.0 if masking else 0.8) * b + steps.sum(0)
        w = w - b
    torch.testing.assert_close(trained.model["w"], w, rtol=0, atol=1e-12)
    assert float(w.norm()) > 0.1
