"""Tensors of every dtype and layout come back from a safetensors file as they were."""

import torch
from safetensors.torch import load, save

from fl_sim.wire.stored_leaves import restored, storable


def test_all_dtypes_and_layouts_come_back() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    leaves = {
        "z": torch.tensor([1 + 2j, 3j], dtype=torch.complex128).conj(),
        "a": torch.tensor([1 + 2j], dtype=torch.complex64).conj().imag,
        "whole": shared,
        "row": shared[0],
        "turned": shared.T,
        "wide": shared[:1, :1].expand(3, 4),
        "empty": torch.zeros(0, 3),
        "bool": torch.tensor(True),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "int": torch.tensor([-1, 2], dtype=torch.int8),
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    stored, pairs = storable(leaves)
    found = restored(load(save(stored)), pairs)
    assert pairs == ["z"] and set(found) == set(leaves)
    for name, x in leaves.items():
        assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype), name
        assert torch.equal(found[name], x.detach()), name
