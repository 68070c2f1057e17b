"""The reference model by hand, and that server and device compute the same one."""

import pytest
import torch

from fl_sim.tree import Tree
from fl_sim.wire.reference import Changes
from strategies.codecs.grouped import Grouped
from strategies.codecs.int8 import Int8
from strategies.codecs.topk import TopK

LARGEST = Changes(TopK(share=1 / 3), rounds=9, seed=0)
"""One of three coordinates."""


def model(*numbers: float) -> Tree:
    return {"a": torch.tensor(numbers[:2], dtype=torch.float64), "b": torch.tensor(numbers[2:], dtype=torch.float64)}


def test_what_a_code_leaves_out_is_in_the_next_ones() -> None:
    """w = (3, -1, 2) from r = 0: the largest difference is sent in each round, 3, then 2, then -1."""
    reference, w = model(0, 0, 0), model(3, -1, 2)
    for server_round, expected in enumerate([model(3, 0, 0), model(3, 0, 2), w], start=2):
        _, reference, _ = LARGEST.coded(reference, w, {}, server_round)
        assert all(torch.equal(reference[k], x) for k, x in expected.items())


@pytest.mark.parametrize("codec", [TopK(share=0.5), Int8(), Grouped(k=2)])
def test_a_device_that_has_the_codes_has_the_servers_bits(codec: TopK) -> None:
    changes, draws = Changes(codec, 9, 5), torch.Generator().manual_seed(0)
    server = device = {"a": torch.zeros(7), "b": torch.zeros(2, 3)}
    for server_round in range(2, 5):
        w = {k: x + torch.randn(x.shape, generator=draws) for k, x in server.items()}
        code, server, _ = changes.coded(server, w, {}, server_round)
        assert sum(x.numel() * x.element_size() for x in code.values()) == changes.num_bytes(w, server_round)
        device = changes.moved(device, code, server_round)
        assert all(torch.equal(device[k], x) for k, x in server.items())
    with pytest.raises(ValueError, match="change of round 5 cannot be read: a code with nothing"):
        changes.moved(device, {}, 5)
