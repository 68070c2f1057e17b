"""``python -m experiments.adapt.founding_code``: the founding text's code, read to the letter, beside its formulas.

The formulas are the recipe ``founding-meta``: each node trains from theta, and theta* is the mean of what they have.
The code (Adam, batches of 32) trains ONE network node after node, and divides its weights by the number of nodes K:
theta* = (the network after the last node) / K. Both are adapted to the nodes that never trained, on the same samples
and with the same steps; printed is the mean accuracy on their other samples before and after.
"""

import sys
from collections.abc import Sequence

import torch

from experiments.command_ends import ended
from experiments.config.recipe_files import make
from experiments.runs.setup import Setup, build
from fl_sim import Loss, optim, rng, tree
from fl_sim.learning.batch import Batch
from fl_sim.tree import Tree

BATCH, RATE = 32, 1e-3
"""Of the code: samples of a batch, and Adam's rate."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0."""
    setup = build(make("founding-meta"))
    rounds, loss = setup.config.rounds, setup.loss
    first, undivided = loss.initial(), loss.initial()
    formulas, code = first, first
    for number in range(rounds):
        nodes = range(len(setup.partition) - setup.config.never_train)
        formulas = tree.scale(_sum([_full_batch(setup, formulas, c) for c in nodes]), 1 / len(nodes))
        code = tree.scale(_one_after_another(setup, code, nodes, number), 1 / len(nodes))
        undivided = _one_after_another(setup, undivided, nodes, number)
    for name, model in (("theta", first), ("formulas", formulas), ("code", code), ("code, not divided", undivided)):
        before, after = _adapted(setup, model)
        print(f"{name:20} {_accuracy(loss, model):.4f} on the test set; new nodes {before:.4f}, adapted {after:.4f}")
    return 0


def _sum(models: Sequence[Tree]) -> Tree:
    return {k: torch.stack([model[k] for model in models]).sum(0) for k in models[0]}


def _rows(setup: Setup, client: int, held: bool = False) -> Tree:
    own, size = setup.partition.client(client), setup.partition.sizes(client)[0]
    rows = torch.from_numpy(own[size:] if held else own[:size])
    return {k: v[rows] for k, v in setup.task.train.items()}


def _stepped(loss: Loss, model: Tree, samples: Tree, lr: float) -> Tree:
    slopes, _, _ = loss.gradient(model, Batch(samples, rng.words(0)))
    return tree.add(model, slopes, -lr)


def _full_batch(setup: Setup, model: Tree, client: int, lr: float = 0.0, steps: int = 0) -> Tree:
    """T steps of gradient descent on all training samples of a node."""
    for _ in range(steps or setup.config.local.steps):
        model = _stepped(setup.loss, model, _rows(setup, client), lr or setup.config.local.lr)
    return model


def _one_after_another(setup: Setup, model: Tree, nodes: Sequence[int], number: int) -> Tree:
    """One network, trained for one pass over each node's samples in turn, by an Adam that goes on from node to node."""
    state, step = optim.State(), 0
    for c in nodes:
        samples = _rows(setup, c)
        order = torch.from_numpy(rng.permutation(rng.key(0, "founding-code", number, c), len(samples["y"])))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            slopes, _, _ = setup.loss.gradient(model, Batch({k: v[part] for k, v in samples.items()}, rng.words(0)))
            model, state = optim.RULES["adam"](model, slopes, state, step, optim.Rates(RATE))
            step += 1
    return model


def _accuracy(loss: Loss, model: Tree) -> float:
    with torch.no_grad():
        return float(loss.metrics(model, Batch(loss.task.test, rng.words(0)))["accuracy"])


def _adapted(setup: Setup, model: Tree) -> tuple[float, float]:
    """Mean accuracy on the held-out samples of nodes that never trained, before and after adaptation to the others."""
    config, results = setup.config, list[tuple[float, float]]()
    for c in range(len(setup.partition) - config.holdout_clients, len(setup.partition)):
        held = Batch(_rows(setup, c, held=True), rng.words(0))
        tuned = _full_batch(setup, model, c, config.personalize_lr, config.personalize_steps)
        with torch.no_grad():
            found = [float(setup.loss.metrics(m, held)["accuracy"]) for m in (model, tuned)]
        results.append((found[0], found[1]))
    before, after = (sum(column) / len(results) for column in zip(*results, strict=True))
    return before, after


if __name__ == "__main__":
    sys.exit(ended(main))
