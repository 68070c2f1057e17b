"""Each attack by hand on two or three clients with two weights; what labels may be flipped."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.attacks.alie import LittleIsEnough
from clients.attacks.ipm import InnerProduct
from clients.attacks.label_flip import LabelFlip
from clients.attacks.noise import Noise
from clients.attacks.sign_flip import SignFlip
from fl_sim import Task, from_arrays
from fl_sim.learning.rule import Draw
from fl_sim.learning.task import cross_entropy

DRAW = Draw(0, 1, 2)


def weights(*numbers: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(numbers, dtype=torch.float64)}


def test_a_sign_flip_reverses_and_enlarges_the_own_update() -> None:
    assert SignFlip().update(weights(1, -2), DRAW)["w"].tolist() == [-5, 10]
    assert SignFlip(factor=0.5).update(weights(1, -2), DRAW)["w"].tolist() == [-0.5, 1]


def test_colluders_send_the_honest_mean_reversed() -> None:
    """Mean of (1, 2) and (3, 6): (2, 4)."""
    honest = {"w": torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)}
    assert InnerProduct().collusion(honest)["w"].tolist() == [-20, -40]
    assert InnerProduct(eps=0.5).collusion(honest)["w"].tolist() == [-1, -2]


def test_alie_stays_z_deviations_below_the_honest_mean() -> None:
    """Of (1, 0), (2, 3), (6, 3): means 3 and 2; squares from them 4 + 1 + 9 and 4 + 1 + 1, divided by 3 clients."""
    honest = {"w": torch.tensor([[1.0, 0.0], [2.0, 3.0], [6.0, 3.0]], dtype=torch.float64)}
    right = [3 - 1.5 * math.sqrt(14 / 3), 2 - 1.5 * math.sqrt(2)]
    np.testing.assert_allclose(LittleIsEnough().collusion(honest)["w"], right, rtol=1e-15)
    assert LittleIsEnough().collusion({"w": honest["w"][:1]})["w"].tolist() == [1, 0]  # one client has no deviation


def test_noise_is_as_large_as_it_says_in_units_of_the_update() -> None:
    own = {"w": torch.full((20_000,), 3.0, dtype=torch.float64), "b": torch.full((20_000,), 1.0, dtype=torch.float64)}
    noisy = Noise(std=2.0).update(own, DRAW)
    for name in own:  # the root mean square over both is sqrt(5)
        off = noisy[name] - own[name]
        assert abs(float(off.std()) / (2 * math.sqrt(5)) - 1) < 0.02 and abs(float(off.mean())) < 0.1
    again, other = (Noise(std=2.0).update(own, Draw(0, 1, client)) for client in (2, 3))
    assert torch.equal(again["w"], noisy["w"]) and not torch.equal(other["w"], noisy["w"])
    single = Noise().update({k: x.float() for k, x in own.items()}, DRAW)
    assert single["w"].dtype == torch.float32


def flip(y: object, **options: object) -> list[float]:
    task = from_arrays(np.zeros((len(np.asarray(y)), 2), np.float32), y, **options).settled()  # type: ignore[arg-type]
    assert LabelFlip().problem(task) == ""
    before = task.train["y"].clone()
    flipped = LabelFlip().samples(task.train, task)
    assert torch.equal(task.train["y"], before) and flipped["x"] is task.train["x"]
    assert flipped["y"].dtype == before.dtype
    return list(flipped["y"].tolist())


def test_labels_are_mirrored() -> None:
    assert flip([0, 1, 2, 2], outputs=3) == [2, 1, 0, 0]
    assert flip([0, 1, -100, 1], outputs=2, loss=cross_entropy) == [1, 0, -100, 0]  # -100 counts in no loss


def test_two_classes_with_one_output_are_mirrored_too() -> None:
    bce = nn.functional.binary_cross_entropy_with_logits

    def loss(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return bce(outputs.squeeze(-1), batch["y"].to(outputs.dtype), reduction="none")

    assert flip([0, 1, 1, 0], outputs=1, loss=loss) == [1, 0, 0, 1]


def regression() -> Task:
    return from_arrays(np.zeros((4, 2), np.float32), np.linspace(0, 1, 4, dtype=np.float32))


def test_labels_of_a_regression_are_refused() -> None:
    assert "needs class labels, and task" in LabelFlip().problem(regression())


@pytest.mark.parametrize("attack", [SignFlip(), Noise(), InnerProduct(), LittleIsEnough()])
def test_other_attacks_suit_every_task(attack: SignFlip) -> None:
    assert attack.problem(regression()) == ""
