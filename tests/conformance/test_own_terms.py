"""Strategies with a term of their own in the loss, as docs/your-own.md shows them, on both engines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.run import run
from fl_sim import Batch, Local, Loss, from_arrays, rng, tree
from fl_sim.local import train
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.fedavg import FedAvg

X = np.random.default_rng(0).normal(size=(47, 4))
Y = np.arange(47) % 3


@dataclass
class Moon(Strategy):
    """Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, arXiv:2103.16257, equations 3 and 4."""

    mu: float = 1.0
    temperature: float = 0.5
    layer: str = "1"

    def initial_state(self, model: Tree) -> Tree:
        """The client's previous model; before its first round the global one."""
        return model

    def local_update(self, model: Tree, state: Tree, batches: Any, loss: Loss, local: Local) -> Any:
        """Features like those of the global model, unlike those of the client's previous one."""

        def gradient(now: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
            near, far = (loss.outputs(other, batch, self.layer).detach() for other in (model, state))

            def term(z: Tensor, samples: Tree) -> Tensor:
                both = [F.cosine_similarity(z, other, dim=1) / self.temperature for other in (near, far)]
                return -self.mu * torch.stack(both).log_softmax(0)[0]

            return loss.step_gradient(now, batch, plus=term, layer=self.layer)

        new, metrics = train(model, batches["train"], local, gradient)
        return new, new, metrics


@dataclass
class Distillation(Strategy):
    """The global model, in evaluation mode, is the teacher."""

    beta: float = 1.0

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, Tensor, Tree]:
        """The gradient of the loss plus ``beta`` times the divergence from the teacher."""
        teacher = loss.outputs(anchor, batch, training=False).detach().softmax(1)

        def term(outputs: Tensor, samples: Tree) -> Tensor:
            return self.beta * F.kl_div(outputs.log_softmax(1), teacher, reduction="none").sum(1)

        return loss.step_gradient(model, batch, plus=term)


def result(strategy: Strategy, engine: str, out: Any) -> Tree:
    with rng.keyed_globals(0):
        module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.25), nn.Linear(5, 3))
    local = {"lr": 0.5, "epochs": 2, "batch_size": 4}
    task = from_arrays(X, Y, x_test=X, y_test=Y)
    done = run(
        strategy=strategy, model=module, task=task, engine=engine, local=local, clients=5, cohort=3, rounds=3,
        dtype="float64", out=str(out),
    )  # fmt: skip
    assert not (done.log.events.event == "fallback").any() and done.summary["engine"] == engine
    return done.model


@pytest.mark.parametrize("make", [Moon, Distillation])
def test_loop_and_vmap_agree_and_the_term_counts(make: Any, tmp_path: Any) -> None:
    """Unequal clients are padded; the state is the client's own from the round in which it last trained."""
    alone, many = (result(make(), engine, tmp_path) for engine in ("loop", "vmap"))
    assert float(tree.norm(tree.sub(alone, many))) < 1e-12
    number = {Moon: "mu", Distillation: "beta"}[make]
    plain, zero = result(FedAvg(), "loop", tmp_path), result(make(**{number: 0.0}), "loop", tmp_path)
    assert float(tree.norm(tree.sub(plain, zero))) < 1e-12 < 1e-3 < float(tree.norm(tree.sub(plain, alone)))
