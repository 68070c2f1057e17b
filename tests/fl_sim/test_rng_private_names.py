"""Draws are the same bits where PyTorch lacks a private name."""

import pytest
import torch
from torch._C import _functorch

from fl_sim import rng
from tests.fl_sim.kernels.missing_names import import_without


@pytest.mark.parametrize("p", [0.25, 0.3])
def test_keep_masks_are_the_same_without_the_check_for_wrapped_tensors(p: float) -> None:
    without = import_without(rng, _functorch, "is_functorch_wrapped_tensor")
    assert rng.HAS_WRAPPED_CHECK and not without.HAS_WRAPPED_CHECK
    keys = rng.words(rng.keys(7, 5))
    for pair in keys:
        assert torch.equal(without.keep_mask(pair, (3, 7), p), rng.keep_mask(pair, (3, 7), p))
    masks = [torch.func.vmap(lambda pair, m=m: m.keep_mask(pair, (3, 7), p))(keys) for m in (without, rng)]
    assert torch.equal(masks[0], masks[1])
