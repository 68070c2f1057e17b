"""Convolutions of clients with weights of their own, on a GPU, as batched matrix products over patches.

Under ``vmap`` a convolution with per-client weights becomes a grouped convolution, which cuDNN runs group by group.
Here the patches along the rows of an image (im2col of one axis) are multiplied by each row of the filter in a ``bmm``.
In a round's first step, where all clients share their weights, it is one ordinary convolution. Derivatives are
convolutions again, of any order.

Legend: C clients, B batch, I channels in, O channels out, H x W pixels, k x k filter,
h x w = (H - k + 1) x (W - k + 1) outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def supports(conv: nn.Conv2d) -> bool:
    """Whether the layer is a plain square convolution of stride 1."""
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    return (
        plain and len({*conv.kernel_size}) == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    )


class Conv2d(nn.Conv2d):
    """The same function as ``nn.Conv2d``, for layers that ``supports`` accepts.

    ``conv.__class__ = Conv2d`` converts an existing layer.
    """

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
        dx = _InputGradient.apply(outer[0], weight) if ctx.needs_input_grad[0] else None
        return dx, _WeightGradient.apply(x, outer[0]) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        x = _clients_first(x, in_dims[0], info.batch_size)
        if in_dims[1] is None:
            return _Convolve.apply(x.flatten(0, 1), weight).unflatten(0, x.shape[:2]), 0
        weight = _clients_first(weight, in_dims[1], info.batch_size)
        filters, patches = _filter_rows(weight, x.shape[1]), _row_patches(x, weight.shape[-1])
        y = torch.bmm(patches[0], filters[0].mT)
        for rows, filter_row in zip(patches[1:], filters[1:], strict=True):
            y.baddbmm_(rows, filter_row.mT)
        h, w = (size - weight.shape[-1] + 1 for size in x.shape[-2:])
        return y.reshape(*x.shape[:2], h, w, -1).permute(0, 1, 4, 2, 3), 0


class _WeightGradient(torch.autograd.Function):
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
        dx = _InputGradient.apply(outer, towards[0]) if ctx.needs_input_grad[0] else None
        return dx, _Convolve.apply(x, towards[0]) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, outer: Tensor) -> tuple[Tensor, int]:
        x, outer = (_clients_first(a, d, info.batch_size) for a, d in zip((x, outer), in_dims, strict=True))
        k, rows = x.shape[-1] - outer.shape[-1] + 1, outer.flatten(0, 1).flatten(2)
        parts = [torch.bmm(rows, part).reshape(*outer.shape[:3], k, -1).sum(1) for part in _row_patches(x, k)]
        return torch.stack(parts, 2).permute(0, 1, 4, 2, 3), 0


class _InputGradient(torch.autograd.Function):
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
        return d_outer, _WeightGradient.apply(towards[0], outer) if ctx.needs_input_grad[1] else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], outer: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        outer = _clients_first(outer, in_dims[0], info.batch_size)
        if in_dims[1] is None:
            return _InputGradient.apply(outer.flatten(0, 1), weight).unflatten(0, outer.shape[:2]), 0
        weight = _clients_first(weight, in_dims[1], info.batch_size)
        (clients, batch, _, h, w), (inputs, k) = outer.shape, weight.shape[2:4]
        pixels, high = outer.flatten(0, 1).flatten(2).mT, h + k - 1
        patches = outer.new_zeros(clients * batch, high * w, k * inputs)
        for i, filter_row in enumerate(_filter_rows(weight, batch)):
            patches[:, i * w : (i + h) * w].baddbmm_(pixels, filter_row)
        image = outer.new_zeros(clients, batch, high, w + k - 1, inputs)
        for j, part in enumerate(patches.view(clients, batch, high, w, k, inputs).unbind(4)):
            image[:, :, :, j : j + w] += part
        return image.permute(0, 1, 4, 2, 3), 0


def _row_patches(x: Tensor, k: int) -> list[Tensor]:
    """(C, B, I, H, W) -> for each row of the filter a view (C B, h w, k I) of the pixels that it is multiplied by."""
    windows = x.flatten(0, 1).unfold(3, k, 1).permute(0, 2, 3, 4, 1)
    high, wide = windows.shape[1:3]
    rows = windows.reshape(len(windows), high * wide, -1)
    return [rows[:, i * wide : (high - k + 1 + i) * wide] for i in range(k)]


def _filter_rows(weight: Tensor, batch: int) -> list[Tensor]:
    """(C, O, I, k, k) -> the k rows of the filter, each (C B, O, k I)."""
    rows = weight.permute(3, 0, 1, 4, 2).flatten(3)
    return [row[:, None].expand(-1, batch, -1, -1).flatten(0, 1) for row in rows]


def _clients_first(x: Tensor, dim: int | None, clients: int) -> Tensor:
    return x.expand(clients, *x.shape) if dim is None else x.movedim(dim, 0)
