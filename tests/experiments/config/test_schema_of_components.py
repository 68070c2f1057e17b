"""Each parameter of a partition changes who owns which sample, each one of a network changes the network."""

from collections.abc import Iterator

import pytest

from clients.learner import make_module
from clients.shares import divided
from experiments.check.component_checks import mixed
from experiments.config.choices import COMMON, Parameter, offered, parameters
from fl_sim import Task, from_arrays, rng

VALUES: dict[tuple[str, str], object] = {
    ("dirichlet", "min_samples"): 20,
    ("quantity", "min_samples"): 20,
    ("conv4", "norm"): "none",
    ("cnn-pool", "pool"): "avg",
}
"""Other values of parameters that a slightly larger one may not change."""
INPUTS = {"mlp": (6,), "sine-mlp": (1,), "char-lstm": (6,)}
"""Shapes of samples; those of other networks are pictures."""


def own(kind: str) -> Iterator[tuple[str, str, object]]:
    """(component, parameter, another value) of each parameter that the components of a kind do not share."""
    for name, component in offered(kind).items():
        for key, parameter in parameters(kind, component).items():
            if key not in COMMON.get(kind, {}):
                yield name, key, VALUES[name, key] if (name, key) in VALUES else another(parameter)


def another(parameter: Parameter) -> object:
    """A value that is not the parameter's default. Raises AssertionError for a type that is not known here."""
    default = parameter.default
    assert isinstance(default, (int, float)), f"{parameter}: give another value in VALUES"
    return (not default) if isinstance(default, bool) else 2 * default or 5


def owners(name: str, **given: object) -> list[list[int]]:
    """The samples of each client."""
    partition = divided(mixed(), offered("partition")[name], 12, 0, 0.0, name, **given)
    return [partition.client(c).tolist() for c in range(len(partition))]


def layers(name: str, **given: object) -> str:
    """The network's layers and the shapes of its weights."""
    shape = INPUTS.get(name, (3, 16, 16))
    x = rng.generator(rng.key(0, "shapes")).normal(size=(4, *shape)).astype("float32")
    task: Task = from_arrays(x, [0, 1, 0, 1], clients=[0, 0, 1, 1])
    module = make_module(offered("model")[name], given, task, 0, name)
    return f"{module} {[tuple(x.shape) for x in module.state_dict().values()]}"


@pytest.mark.parametrize("name, key, value", list(own("partition")))
def test_a_parameter_of_a_partition_acts(name: str, key: str, value: object) -> None:
    assert owners(name, **{key: value}) != owners(name)


@pytest.mark.parametrize("name, key, value", list(own("model")))
def test_a_parameter_of_a_network_acts(name: str, key: str, value: object) -> None:
    assert layers(name, **{key: value}) != layers(name)
