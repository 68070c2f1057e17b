"""The CNN of the CIFAR-10 speed benchmark: its layers and initial weights."""

from torch import nn

from clients.models.cnn import cnn
from fl_sim import rng


def test_cnn_is_the_benchmarks() -> None:
    with rng.keyed_globals(rng.key(0, "model")):
        model = cnn((3, 32, 32), 10)
    kinds = [type(m).__name__ for m in model.children()]
    assert kinds == [
        "Conv2d",
        "ReLU",
        "Conv2d",
        "MaxPool2d",
        "Flatten",
        "ReLU",
        "Dropout",
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
    ]
    assert [m.p for m in model.children() if isinstance(m, nn.Dropout)] == [0.25, 0.5]
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        else:
            # Glorot & Bengio 2010, eq. 16: uniform within sqrt(6 / (fan in + fan out)), here approached to 2 %
            area = p[0, 0].numel()
            bound = (6 / (area * (p.shape[0] + p.shape[1]))) ** 0.5
            assert 0.98 * bound < p.abs().max() <= bound
