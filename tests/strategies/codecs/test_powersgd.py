"""powersgd: repeated rounds find the best approximation of rank r; a matrix of that rank is sent exactly."""

import pytest
import torch

from fl_sim.wire.codec import Keys
from strategies.codecs.powersgd import PowerSGD
from tests.strategies.test_codecs import normal


def test_what_is_sent_of_which_tensor() -> None:
    """r (m + n) < m n: of (6, 27) at r = 2 66 < 162 numbers; (4, 4) has 16 = 2 (4 + 4) and is sent whole."""
    like = normal(0, kernel=(6, 3, 3, 3), square=(4, 4), bias=(6,), scale=())
    form = PowerSGD(2).form(like)
    assert {k: f.shape for k, f in form.items()} == {
        **{"kernel#p": (6, 2), "kernel#q": (27, 2)},
        **{"square": (4, 4), "bias": (6,), "scale": ()},
    }
    assert PowerSGD(1).is_thin(like["square"]) and not PowerSGD(100).is_thin(like["kernel"])
    read, _ = PowerSGD(2).transmit(like, {}, Keys(1, 2))
    assert all(torch.equal(read[k], like[k]) for k in ("square", "bias", "scale"))


def test_a_matrix_of_that_rank_is_sent_exactly_in_the_first_round() -> None:
    """M = A B^T of rank 2: the columns of M Q span those of M, so that P P^T M = M; as a kernel (7, 2, 2, 3) too."""
    parts = normal(3, a=(7, 2), b=(12, 2))
    matrix = parts["a"].double() @ parts["b"].double().T
    for x in (matrix, matrix.reshape(7, 2, 2, 3)):
        read, _ = PowerSGD(2).transmit({"w": x}, {}, Keys(1, 2))
        torch.testing.assert_close(read["w"], x, rtol=0, atol=1e-12)


def test_of_a_matrix_that_stays_the_best_approximation_is_found_from_the_kept_q() -> None:
    """Subspace iteration: M^T M Q turns to the first r right singular vectors; with spectrum 8, 4, 1, .5 the part of
    the others falls by (1/4)^2 a round. The best error of rank 2 is sqrt(1 + .25) (Eckart, Young 1936)."""
    q, _ = torch.linalg.qr(normal(5, q=(9, 4))["q"].double())
    p, _ = torch.linalg.qr(normal(6, p=(10, 4))["p"].double())
    update = {"w": p @ torch.diag(torch.tensor([8.0, 4.0, 1.0, 0.5]).double()) @ q.T}
    state, errors = dict[str, torch.Tensor](), []
    for number in range(14):
        read, state = PowerSGD(2).transmit(update, state, Keys(0, number))
        errors.append(float((read["w"] - update["w"]).norm()))
    assert errors[-1] == pytest.approx(1.25**0.5, abs=1e-9) and errors[0] > errors[-1] + 1e-6


def test_the_first_q_is_the_clients_own_and_a_kept_one_of_another_rank_is_drawn_anew() -> None:
    update = normal(7, w=(12, 10))
    one, other = (PowerSGD(2).transmit(update, {}, Keys(4, own))[1] for own in (1, 2))
    assert not torch.equal(one["q::w"], other["q::w"])
    again, _ = PowerSGD(3).transmit(update, one, Keys(4, 1))
    assert torch.equal(again["w"], PowerSGD(3).transmit(update, {}, Keys(4, 1))[0]["w"])
