"""``bench.sweep``: its figures, and its floor, which does what autograd does."""

import json
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F

from experiments.bench.sweep import __main__ as sweep
from experiments.bench.sweep import batched_products
from experiments.bench.tables import sweep_table
from fl_sim import rng


def test_a_step_by_hand_is_a_step_of_sgd_of_each_client() -> None:
    with rng.keyed_globals(0):
        sizes, clients, batch = (7, 5, 4, 3), 3, 6
        pairs = list(pairwise(sizes))
        weights = [torch.randn(clients, wide, narrow, dtype=torch.float64) for narrow, wide in pairs]
        biases = [torch.randn(clients, 1, wide, dtype=torch.float64) for _, wide in pairs]
        x, y = torch.randn(clients, batch, sizes[0], dtype=torch.float64), torch.randint(sizes[-1], (clients, batch))
    leaves = [leaf.clone().requires_grad_() for leaf in (*weights, *biases)]
    for c in range(clients):
        outputs = x[c]
        for layer in range(3):
            outputs = F.linear(outputs, leaves[layer][c], leaves[3 + layer][c, 0])
            outputs = outputs.relu() if layer < 2 else outputs
        F.cross_entropy(outputs, y[c]).backward()
    batched_products.step(weights, biases, x, y, 0.3)
    for new, leaf in zip((*weights, *biases), leaves, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(new, leaf.detach() - 0.3 * leaf.grad, rtol=1e-12, atol=1e-13)


def test_it_times_every_model_that_it_knows() -> None:
    assert all(batched_products.seconds(model, 3, 1, steps=2, samples=50) > 0 for model in batched_products.SIZES)


def test_the_command_keeps_its_figures_and_draws_them(tmp_path: Path) -> None:
    out = tmp_path / "sweep.json"
    assert (
        sweep.main(
            ["--models", "lr", "--task", "digits", "--clients", "20", "--rounds", "1", "--goes", "1", "--out", str(out)]
        )
        == 0
    )
    figures = json.loads(out.read_text())
    row = figures["sweep"]["lr"]
    assert (
        set(row) == set(sweep_table.WAYS)
        and row["batch"]["ratio"] == 1.0
        and all(kept["seconds"] > 0 for kept in row.values())
    )
    figures["sweep"]["2nn"] = {**row, sweep_table.BY_HAND: {"seconds": 1.0, "ratio": 0.5}}
    head, _, first, second = sweep_table.markdown(figures).splitlines()[:4]
    assert head.count("|") == first.count("|") == second.count("|") and " 0.50 " in second and "by hand" in head
