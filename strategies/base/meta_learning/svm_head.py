"""The dual of the Crammer-Singer SVM without a bias, solved by accelerated projected gradients, as a function to
differentiate.

Crammer, Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR 2 (2001), as in
Lee et al. 2019, arXiv:1904.03758, equation 9. G (N, N) products of samples, Y (N, K) their classes, one-hot.

    min_A  1/2 sum_k A_k^T G A_k - sum_ik A_ik Y_ik     with  A <= C Y,  sum_k A_ik = 0

``steps`` steps of A <- P(Z - (G Z - Y) / L) with Nesterov's momentum, which begins again where it points uphill
(O'Donoghue, Candes, "Adaptive Restart for Accelerated Gradient Schemes", 2015). P projects each row onto the simplex of
C Y_i - A_i >= 0 with the sum C (Duchi et al., ICML 2008). L is a bound of G's largest eigenvalue.

The derivative is that of the solution, by the implicit function theorem: on the face of A, where the entries at their
bound do not move and rows have the sum 0, with the projector Q onto it,  Q G Q dA = -Q dG A. The adjoint system is
solved by as many steps of conjugate gradients. A itself need not be unique; G A, and so all logits, are.

Legend: N samples, K classes.
"""

from typing import Any

import torch
from torch import Tensor


class Dual(torch.autograd.Function):
    """``Dual.apply(products, targets, bound, steps)``: A (N, K)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(products: Tensor, targets: Tensor, bound: Tensor, steps: int) -> Tensor:
        """A (N, K) of at most ``bound`` (C Y). A row of ``targets`` and ``bound`` that is 0 is padding; its A is 0."""
        largest = eigenvalue_bound(products)
        a = z = torch.zeros_like(targets)
        t = torch.ones_like(largest)
        for _ in range(steps):
            new = projected(z - (products @ z - targets) / largest, bound)
            uphill = ((z - new) * (new - a)).sum() > 0
            t = torch.where(uphill, torch.ones_like(t), t)
            after = (1 + torch.sqrt(1 + 4 * t * t)) / 2
            a, z, t = new, new + (t - 1) / after * (new - a), after
        return a

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivative needs."""
        products, _, bound, ctx.steps = inputs
        ctx.save_for_backward(products, bound, output)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of G."""
        products, bound, a = ctx.saved_tensors
        free = (a < bound).to(a)
        count = free.sum(1, keepdim=True).clamp(min=1)

        def on_face(v: Tensor) -> Tensor:
            inside = v * free
            face: Tensor = inside - free * (inside.sum(1, keepdim=True) / count)
            return face

        v = conjugate_gradients(lambda x: on_face(products @ x), on_face(given), ctx.steps)
        return -v @ a.T, None, None, None


def projected(z: Tensor, bound: Tensor) -> Tensor:
    """The point nearest to z (N, K) with entries of at most ``bound`` (C at a row's class, else 0), rows of sum 0."""
    below, size = bound - z, bound.sum(1, keepdim=True)
    ordered = torch.sort(below, dim=1, descending=True).values
    excess = ordered.cumsum(1) - size
    counts = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
    kept = (ordered * counts > excess).sum(1, keepdim=True).clamp(min=1)
    return bound - (below - excess.gather(1, kept - 1) / kept).clamp(min=0)


def eigenvalue_bound(a: Tensor) -> Tensor:
    """A bound () of the largest eigenvalue of a positive semidefinite matrix, at most N^(1/32) too large.

    It is |a^16|^(1/16) in the Frobenius norm: no eigenvalue is computed, for which a GPU would wait.
    """
    size = torch.sqrt((a * a).sum()).clamp(min=1e-12)
    power = a / size
    for _ in range(4):
        power = power @ power
    return size * torch.sqrt((power * power).sum()).clamp(min=1e-30) ** (1 / 16) * (1 + 1e-6)


def conjugate_gradients(times: Any, b: Tensor, steps: int) -> Tensor:
    """x with times(x) = b for a positive semidefinite ``times``, by a fixed number of steps; none past convergence."""
    x, r = torch.zeros_like(b), b
    p, rr = r, (r * r).sum()
    least = rr * torch.finfo(b.dtype).eps ** 2
    for _ in range(steps):
        q = times(p)
        curvature = (p * q).sum()
        goes_on = (rr > least) & (curvature > 0)
        length = torch.where(goes_on, rr / torch.where(goes_on, curvature, 1.0), 0.0)
        x, r = x + length * p, r - length * q
        new = (r * r).sum()
        p = r + torch.where(goes_on, new / torch.where(goes_on, rr, 1.0), 0.0) * p
        rr = torch.where(goes_on, new, 0.0)
    return x
