"""Products H v of a loss's Hessian with a vector: exact, and as the central difference of two gradients.

    difference:  (grad l(w + h v) - grad l(w - h v)) / (2 h)

Its relative error is about  (h |v| / L)^2 / 6  from the terms left out (L: the distance along v over which H changes
by its own size) plus  eps L / (h |v|)  from rounding; the sum is least at  h |v| = (3 eps)^(1/3) L:  Nocedal, Wright,
"Numerical Optimization", 2nd edition, 2006, section 8.1. For L Andrei, "Accelerated conjugate gradient algorithm with
finite difference Hessian/vector product approximation", J. Comput. Appl. Math. 230 (2009), takes 1 + |w|. Here it is a
sixteenth of that, because the curvature of networks changes over shorter distances: on the digits in float32, errors
were least with an eighth (linear model), a sixteenth (one hidden layer) and a fiftieth (GroupNorm, deep tanh).

    scaled step:  h = (3 eps)^(1/3) (1 + |w|) / (16 |v|),  rounded to a power of two

A power of two makes h v exact, and the last bits of |w| and |v|, in which engines differ, do not matter.

A network of ReLU or max pooling is linear in pieces. Between them the gradient jumps, the difference divides the jump
by 2 h, and the Hessian has no part of it: no step is right there. The smaller the step, the fewer batches cross a jump,
and the larger is the error of those that do.

Legend: w all parameters that train, B batch.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from fl_sim import Batch, Loss, rng, tree
from fl_sim.tree import Tree

TF32_EPS = 2.0**-10
"""Spacing of the numbers near 1 in TF32."""
BATCHES, LARGEST = 4, 32
"""Numbers of batches, and of samples in them, on which the difference is compared with the exact product."""
WIDE, NARROW = 2.0**-8, 2.0**-10
"""Two steps by ``h |v| / (1 + |w|)``: of a smooth loss the errors are as 16 to 1."""


def exact_product(at: Tree, vector: Tree, batch: Batch, loss: Loss) -> Tree:
    """H(at; batch) vector, by differentiating the gradient; leaves are those of ``vector``."""
    gradient = torch.func.grad(lambda p: loss({**at, **p}, batch))
    return cast(Tree, torch.func.vjp(gradient, {k: at[k] for k in vector})[1](vector)[0])


def difference_product(at: Tree, vector: Tree, batch: Batch, loss: Loss, step: float | Tensor) -> Tree:
    """H(at; batch) vector as the central difference of two gradients with the step ``h`` (a number, or ()).

    Raises ValueError where matrix products are in bf16: the gradients have three digits, their difference has none.
    """
    if loss.precision == "bf16":
        raise ValueError("precision = 'bf16': leaves no digit of a difference of two gradients; use full")
    ahead, _, _ = loss.gradient(tree.add(at, vector, step), batch)
    behind, _, _ = loss.gradient(tree.add(at, vector, -step), batch)
    return tree.scale(tree.sub(ahead, behind), 1 / (2 * step))


def scaled_step(at: Mapping[str, Tensor], vector: Tree, loss: Loss) -> Tensor:
    """The step h (): a power of two near ``(3 eps)^(1/3) (1 + |w|) / (16 |v|)``, finite also where v is 0.

    ``eps`` is that of the dtype, or of TF32 where matrix products are rounded to it; |w| is taken over the leaves of
    ``vector``, without running statistics.
    """
    eps = TF32_EPS if loss.precision == "tf32" else torch.finfo(loss.dtype).eps
    return relative_step(at, vector, (3 * eps) ** (1 / 3) / 16)


def relative_step(at: Mapping[str, Tensor], vector: Tree, share: float) -> Tensor:
    """The power of two () that is nearest to ``share (1 + |w|) / |v|``, by the logarithm."""
    length, size = 1 + tree.norm({k: at[k] for k in vector}), tree.norm(vector)
    least = torch.finfo(size.dtype).tiny ** 0.5
    return torch.exp2(torch.round(torch.log2(share * length / size.clamp(min=least))))


@dataclass(frozen=True)
class Accuracy:
    """Errors of the difference on a few batches, relative to the norm of the exact product."""

    errors: tuple[float, ...]
    """With the step of the run."""
    wide: tuple[float, ...]
    """With the step WIDE."""
    narrow: tuple[float, ...]
    """With the step NARROW."""
    samples: int
    """B, the samples of a batch."""

    @property
    def has_kinks(self) -> bool:
        """Whether the errors of two steps, where they are not small, are in another ratio than those of a smooth loss.

        That is 16; where one of the steps, or both, crosses a jump of the gradient, it is far from that.
        """
        return any(a > 0.01 and not 8 < a / max(b, 1e-30) < 32 for a, b in zip(self.wide, self.narrow, strict=True))

    @property
    def sentence(self) -> str:
        """What a run must be told, or "" where the errors are below 5 % and the loss is smooth."""
        if not self.has_kinks and max(self.errors) < 0.05:
            return ""
        middle, largest = statistics.median(self.errors), max(self.errors)
        where = f"{len(self.errors)} batches of {self.samples} samples at the initial model"
        what = f"the relative error of the finite difference is {middle:.2g} (median) and {largest:.2g} (largest)"
        cure = "use --strategy.order exact or fo"
        if not self.has_kinks:
            return f"strategy.order hf: {what} in {where}; {cure}"
        why = "the gradient jumps, as it does with ReLU and max pooling, and a batch whose step crosses a jump has a"
        why = f"{why} wrong product (relative error {max(self.wide):.2g} with a step of {WIDE:.1%} of the model)"
        return f"strategy.order hf: {what} in {where}; {why}; {cure}, or a smooth activation such as GELU"


def accuracy(loss: Loss, inner_lr: float, step: float | None, batch_size: int) -> Accuracy | None:
    """Compare differences with exact products at the initial model, for vectors as Per-FedAvg has them.

    Parameters
    ----------
    inner_lr : float
        alpha: the vectors are gradients after one inner step.
    step : float | None
        The run's fixed step h; None: the scaled one.
    batch_size : int
        Samples of a batch, at most LARGEST; 0: all.

    Returns
    -------
    Accuracy | None
        None where there are no samples, the exact product cannot be taken (a layer without second derivatives), or
        a value is 0 or not finite.
    """
    total, size = loss.task.num_train, min(batch_size or LARGEST, LARGEST)
    if not total:
        return None
    model = loss.initial()
    found: list[list[float]] = []
    for number in range(BATCHES):
        order = torch.from_numpy(rng.permutation(rng.key(0, "hessian", number), total))
        rows = order[torch.arange(3 * size) % total].reshape(3, size)
        with rng.keyed_globals(0):
            inner, outer, third = (_batch(loss, part) for part in rows)
            vector, _, _ = loss.gradient(tree.add(model, loss.gradient(model, inner)[0], -inner_lr), outer)
            try:
                product = exact_product(model, vector, third, loss)
            except Exception:  # a layer without second derivatives may raise anything
                return None
            own = scaled_step(model, vector, loss) if step is None else step
            steps = (own, relative_step(model, vector, WIDE), relative_step(model, vector, NARROW))
            off = [tree.sub(difference_product(model, vector, third, loss, h), product) for h in steps]
        found.append([(tree.norm(x) / tree.norm(product)).item() for x in off])
    if not bool(torch.isfinite(torch.tensor(found)).all()):
        return None
    own_errors, wide, narrow = (tuple(column) for column in zip(*found, strict=True))
    return Accuracy(own_errors, wide, narrow, size)


def _batch(loss: Loss, rows: Tensor) -> Batch:
    return Batch({k: v[rows].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))
