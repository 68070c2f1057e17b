"""Update rules against torch.optim, step by step."""

from collections.abc import Callable

import pytest
import torch

from fl_sim import tree
from fl_sim.learning import optim
from fl_sim.learning.optim import Rates
from fl_sim.tree import Tree

CASES: dict[str, tuple[str, Rates, Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ("sgd", Rates(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "sgd momentum": ("sgd", Rates(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "sgd decay": ("sgd", Rates(0.1, 0.9, 0.02), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.02)),
    "adam": ("adam", Rates(0.1), lambda p: torch.optim.Adam(p, 0.1)),
    "adam decay": ("adam", Rates(0.1, weight_decay=0.02), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.02)),
    "adam betas": (
        "adam",
        Rates(0.1, betas=(0.0, 0.9), eps=1e-3),
        lambda p: torch.optim.Adam(p, 0.1, betas=(0.0, 0.9), eps=1e-3),
    ),
    "adamw": ("adamw", Rates(0.1, weight_decay=0.02), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.02)),
}


def start(seed: int) -> Tree:
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(shape, generator=generator, dtype=torch.float64)
        for k, shape in (("w", (3, 2)), ("b", (3,)), ("t", ()))
    }


@pytest.mark.parametrize("case", CASES)
def test_six_steps_are_those_of_torch_optim(case: str) -> None:
    name, rates, reference = CASES[case]
    params, state = start(0), {}
    theirs = {k: v.clone().requires_grad_() for k, v in params.items()}
    optimizer = reference(theirs.values())
    for step in range(6):
        grads = start(step + 1)
        params, state = optim.RULES[name](params, grads, state, step, rates)
        for k, v in theirs.items():
            v.grad = grads[k].clone()
        optimizer.step()
        for k, v in theirs.items():
            torch.testing.assert_close(params[k], v.detach(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_arguments_are_not_modified_unless_in_place_is_set(case: str) -> None:
    name, rates, _ = CASES[case]
    params, state = start(0), {}
    for step in range(2):
        grads = start(step + 1)
        given = [tree.digest(t) for t in (params, grads, *state.values())]
        new, new_state = optim.RULES[name](params, grads, state, step, rates)
        assert [tree.digest(t) for t in (params, grads, *state.values())] == given
        params, state = new, new_state


@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 0.01)])
def test_in_place_gives_the_same_bits(momentum: float, decay: float) -> None:
    models: list[Tree] = []
    for in_place in (False, True):
        params, state = start(0), {}
        for step in range(4):
            params, state = optim.sgd(
                params, start(step + 1), state, step, Rates(0.1, momentum, decay, in_place=in_place)
            )
        models.append(params)
    assert tree.digest(models[0]) == tree.digest(models[1])


@pytest.mark.parametrize("case", CASES)
def test_many_at_once_are_one_after_another(case: str) -> None:
    name, rates, _ = CASES[case]

    def two_steps(params: Tree, first: Tree, second: Tree) -> Tree:
        params, state = optim.RULES[name](params, first, {}, 0, rates)
        return optim.RULES[name](params, second, state, 1, rates)[0]

    stacks = [tree.stack([start(10 * c + i) for c in range(3)]) for i in range(3)]
    together = torch.func.vmap(two_steps)(*stacks)
    for c in range(3):
        alone = two_steps(*(tree.take(stack, c) for stack in stacks))
        assert all(torch.allclose(together[k][c], alone[k], rtol=0, atol=1e-14) for k in alone)


@pytest.mark.parametrize("largest", [0.5, 5.0, 500.0])
def test_clipping_is_torchs(largest: float) -> None:
    grads = start(1)
    leaves = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads.values()]
    for leaf, g in zip(leaves, grads.values(), strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, largest)
    clipped = optim.clip(grads, largest, tree.norm(grads))
    for leaf, g in zip(leaves, clipped.values(), strict=True):
        torch.testing.assert_close(g, leaf.grad, rtol=0, atol=1e-14)
    assert float(tree.norm(clipped)) <= largest
