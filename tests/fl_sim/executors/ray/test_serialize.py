"""Serialized objects are equal after unpacking; tensors travel beside the pickle."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fl_sim.executors.ray.serialize import LARGE, pack, unpack

TENSORS = {
    "plain": torch.randn(3, 4),
    "channels last": torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),
    "part of another": torch.randn(6, 5)[::2, 1:],
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0),
    "bfloat16": torch.randn(5).bfloat16(),
    "bool": torch.tensor([True, False]),
}


def through_a_store(value: Any, read_only: bool = True) -> Any:
    """Packed and unpacked, with references to a store in the place of all arrays."""
    store: dict[str, np.ndarray] = {}

    def share(array: np.ndarray, is_tensor: bool) -> str:
        store[key := f"array {len(store)}"] = array.view() if is_tensor else array.copy()
        store[key].flags.writeable = not read_only
        return key

    return unpack(pack(value, share), lambda keys: [store[key] for key in keys])


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_tensor_is_unchanged(name: str, shared: bool) -> None:
    x = TENSORS[name]
    y = through_a_store({"x": x})["x"] if shared else unpack(pack({"x": x}))["x"]
    assert torch.equal(x, y) and x.dtype == y.dtype
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        assert x.stride() == y.stride()


def test_a_tensor_is_copied_and_a_shared_one_is_not() -> None:
    x = torch.zeros(4)
    [copy] = unpack(pack([x]))
    copy += 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [shared] = through_a_store([x])  # torch would warn that it is read-only
    assert x.sum() == 0 and shared.data_ptr() == x.data_ptr()


def test_an_object_that_occurs_twice_travels_once() -> None:
    x, big = torch.zeros(10), np.zeros(LARGE, np.uint8)
    packed = pack({"a": x, "b": x, "c": {"d": x}, "e": big, "f": big, "small": np.zeros(3)})
    assert len(packed.arrays) == 2 and len(packed.body) < 2000
    out = unpack(packed)
    assert out["a"] is out["b"] is out["c"]["d"] and out["small"].tolist() == [0, 0, 0]


def test_modules_functions_and_devices_travel() -> None:
    class Own(nn.Module):  # cannot be imported
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.register_buffer("mean", torch.ones(3))

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x) - self.mean

    module, add = Own(), 3
    other, function, device = unpack(pack((module, lambda x: x + add, torch.device("cpu"))))
    x = torch.randn(5, 2)
    assert torch.equal(module(x), other(x)) and function(1) == 4 and device == torch.device("cpu")
    assert isinstance(other.layer.weight, nn.Parameter) and other.layer.weight.requires_grad
