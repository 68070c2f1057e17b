"""Convolutions of clients that have weights of their own, on a GPU: one batched matrix product over patches. No paper.

Under ``vmap`` a convolution of per-client weights becomes a grouped one, which cuDNN runs group by group. Here every
client's patches (im2col) meet its weights in one ``bmm``; while all clients still share their weights, in a round's first
step, it is one ordinary convolution. The derivatives are convolutions again, to any order.

Legend: C clients, B batch, I channels in, O channels out, H x W pixels, k x k filter, h x w = (H - k + 1) x (W - k + 1).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def suits(conv: nn.Conv2d) -> bool:
    """Whether the layer is a plain square convolution of stride 1."""
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    return plain and len({*conv.kernel_size}) == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class Conv2d(nn.Conv2d):
    """An ``nn.Conv2d`` that ``suits``: ``conv.__class__ = patches.Conv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, I, H, W) -> (B, O, h, w)."""
        if x.ndim != 4:
            return super().forward(x)
        high, wide = map(int, self.padding)
        y: Tensor = _Convolve.apply(F.pad(x, (wide, wide, high, high)) if high or wide else x, self.weight)
        return y if self.bias is None else y + self.bias[:, None, None]


class _Convolve(torch.autograd.Function):
    """x (B, I, H, W), weight (O, I, k, k) -> (B, O, h, w)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = _Spread.apply(outer[0], weight) if ctx.needs_input_grad[0] else None
        return dx, _Filter.apply(x, outer[0]) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        x = _clients_first(x, in_dims[0], info.batch_size)
        if in_dims[1] is None:
            return _Convolve.apply(x.flatten(0, 1), weight).unflatten(0, x.shape[:2]), 0
        weight = _clients_first(weight, in_dims[1], info.batch_size)
        k = weight.shape[-1]
        filters = weight.permute(0, 3, 4, 2, 1).reshape(len(weight), -1, weight.shape[1])
        y = torch.bmm(_patches(x, k), filters)
        return y.reshape(*x.shape[:2], x.shape[-2] - k + 1, x.shape[-1] - k + 1, -1).permute(0, 1, 4, 2, 3), 0


class _Filter(torch.autograd.Function):
    """x (B, I, H, W), outer (B, O, h, w) -> the gradient of the weight (O, I, k, k)."""

    @staticmethod
    def forward(x: Tensor, outer: Tensor) -> Tensor:
        return F.conv2d(x.transpose(0, 1), outer.transpose(0, 1)).transpose(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, outer = ctx.saved_tensors
        dx = _Spread.apply(outer, towards[0]) if ctx.needs_input_grad[0] else None
        return dx, _Convolve.apply(x, towards[0]) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, outer: Tensor) -> tuple[Tensor, int]:
        x, outer = (_clients_first(a, d, info.batch_size) for a, d in zip((x, outer), in_dims, strict=True))
        k = x.shape[-1] - outer.shape[-1] + 1
        rows = outer.permute(0, 2, 1, 3, 4).flatten(2)
        return torch.bmm(rows, _patches(x, k)).reshape(*rows.shape[:2], k, k, -1).permute(0, 1, 4, 2, 3), 0


class _Spread(torch.autograd.Function):
    """outer (B, O, h, w), weight (O, I, k, k) -> the gradient of the input (B, I, H, W)."""

    @staticmethod
    def forward(outer: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(outer, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, Tensor | None]:
        outer, weight = ctx.saved_tensors
        d_outer = _Convolve.apply(towards[0], weight) if ctx.needs_input_grad[0] else None
        return d_outer, _Filter.apply(towards[0], outer) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], outer: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        outer = _clients_first(outer, in_dims[0], info.batch_size)
        if in_dims[1] is None:
            return _Spread.apply(outer.flatten(0, 1), weight).unflatten(0, outer.shape[:2]), 0
        weight = _clients_first(weight, in_dims[1], info.batch_size)
        (clients, batch, _, h, w), (inputs, k) = outer.shape, weight.shape[2:4]
        parts = torch.bmm(outer.permute(0, 1, 3, 4, 2).flatten(1, 3), weight.permute(0, 1, 3, 4, 2).flatten(2))
        parts = parts.reshape(clients, batch, h, w, k, k, inputs)
        made = outer.new_zeros(clients, batch, h + k - 1, w + k - 1, inputs)
        for i in range(k):
            for j in range(k):
                made[:, :, i : i + h, j : j + w] += parts[:, :, :, :, i, j]
        return made.permute(0, 1, 4, 2, 3), 0


def _patches(x: Tensor, k: int) -> Tensor:
    """(C, B, I, H, W) -> (C, B h w, k k I)."""
    seen = x.unfold(3, k, 1).unfold(4, k, 1).permute(0, 1, 3, 4, 5, 6, 2)
    return seen.reshape(len(x), -1, k * k * x.shape[2])


def _clients_first(x: Tensor, dim: int | None, clients: int) -> Tensor:
    return x.expand(clients, *x.shape) if dim is None else x.movedim(dim, 0)
