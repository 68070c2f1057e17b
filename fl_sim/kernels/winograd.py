"""3x3 convolutions with a quarter of the multiplications, for CPUs.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308, F(4x4, 3x3),
equations 9 and 13.

    y = A [(G w) * (B d)]      a tile d of 6 x 6 inputs and a filter w of 3 x 3 give 4 x 4 outputs y

A, B, G are the Kronecker squares of the paper's matrices (a tile is a vector of 36), so that each transform of all
tiles is one matrix product, and so is each of the 36 sums over channels. The gradients are the same products
transposed. Samples are processed in groups of about 256 tiles, which stay in the cache.

Legend: N samples (of a group), C channels in, K channels out, R x S tiles a sample, T = N R S.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
TILES = 256
"""Tiles of a group of samples, approximately."""


@lru_cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A (16, 36), B (36, 36), G (36, 9)."""
    a, b, g = (torch.tensor(rows, dtype=torch.float64) for rows in (_A, _B, _G))
    return torch.kron(a, a).to(dtype), torch.kron(b, b).to(dtype), torch.kron(g / 24, g / 24).to(dtype)


def supports(conv: nn.Conv2d) -> bool:
    """Whether the layer is a 3x3 convolution of stride 1 with enough channels to gain from the transforms (32 x 64)."""
    plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    padded = conv.padding_mode == "zeros" and conv.padding in ((0, 0), (1, 1))
    return plain and padded and conv.in_channels * conv.out_channels >= 2048


class Conv3x3(nn.Conv2d):
    """The same function as ``nn.Conv2d``, up to rounding (1e-6 in float32), for layers that ``supports`` accepts.

    ``conv.__class__ = Conv3x3`` converts an existing layer. It supports first derivatives only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, K, H', W'), channels last in memory.

        PyTorch's own convolution is used for few tiles, or tiles that are less than 3/4 full.
        """
        pad = int(self.padding[0])
        rows, columns = x.shape[-2] + 2 * pad - 2, x.shape[-1] + 2 * pad - 2
        tiles = -(-rows // 4) * -(-columns // 4)
        if x.ndim != 4 or len(x) * tiles < 32 or rows * columns < 12 * tiles:
            return super().forward(x)
        y: Tensor = _Winograd.apply(x, self.weight, self.bias, pad)
        return y


def _groups(n: int, tiles: int) -> Iterator[slice]:
    """Slices of the samples, each with about ``TILES`` tiles."""
    size = max(1, TILES // tiles)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pad: int) -> Tensor:
        (n, c, height, width), k = x.shape, len(weight)
        rows, columns = height + 2 * pad - 2, width + 2 * pad - 2
        r, s = -(-rows // 4), -(-columns // 4)
        a, b, g = _matrices(x.dtype)
        edges = (0, 0, pad, 4 * s + 2 - width - pad, pad, 4 * r + 2 - height - pad)
        image = x.permute(0, 2, 3, 1)
        image = F.pad(image, edges) if any(edges) else image.contiguous()
        one, row, column, _ = image.stride()
        filters = (g @ weight.reshape(k * c, 9).T).view(36, k, c)
        y, kept = x.new_empty(n, r, 4, s, 4, k), []
        for group in _groups(n, r * s):
            size = group.stop - group.start
            tiles = image[group].as_strided((6, 6, size, r, s, c), (row, column, one, 4 * row, 4 * column, 1))
            inputs = (b @ tiles.reshape(36, -1)).view(36, -1, c)
            outputs = a @ torch.bmm(inputs, filters.transpose(1, 2)).view(36, -1)
            y[group] = outputs.view(4, 4, size, r, s, k).permute(2, 3, 0, 4, 1, 5)
            kept.append(inputs)
        ctx.save_for_backward(filters, *kept)
        ctx.sizes = (n, c, height, width, r, s, pad)
        y = y.view(n, 4 * r, 4 * s, k)[:, :rows, :columns].contiguous().permute(0, 3, 1, 2)
        return y if bias is None else y.add_(bias.view(-1, 1, 1))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        filters, *kept = ctx.saved_tensors
        n, c, height, width, r, s, pad = ctx.sizes
        y = outer[0].permute(0, 2, 3, 1)
        bias = y.sum((0, 1, 2)) if ctx.needs_input_grad[2] else None
        edges = (0, 0, 0, 4 * s - y.shape[2], 0, 4 * r - y.shape[1])
        y, k = (F.pad(y, edges) if any(edges) else y).reshape(n, r, 4, s, 4, -1), y.shape[3]
        a, b, g = _matrices(y.dtype)
        image, dw = y.new_zeros(n, r + 1, 4, s + 1, 4, c), torch.empty(0)
        for group, inputs in zip(_groups(n, r * s), kept, strict=True):
            outputs = (a.T @ y[group].permute(2, 4, 0, 1, 3, 5).reshape(16, -1)).view(36, -1, k)
            dw = (
                dw.baddbmm_(outputs.transpose(1, 2), inputs)
                if group.start
                else torch.bmm(outputs.transpose(1, 2), inputs)
            )
            if ctx.needs_input_grad[0]:
                tiles = (b.T @ torch.bmm(outputs, filters).view(36, -1)).view(6, 6, -1, r, s, c)
                _add_tiles(image[group], tiles.permute(2, 3, 0, 4, 1, 5))
        dx = image.view(n, 4 * r + 4, 4 * s + 4, c)[:, pad : pad + height, pad : pad + width].permute(0, 3, 1, 2)
        return dx if ctx.needs_input_grad[0] else None, (g.T @ dw.view(36, -1)).T.reshape(k, c, 3, 3), bias, None


def _add_tiles(image: Tensor, tiles: Tensor) -> None:
    """Add tiles (N, R, 6, S, 6, C), which overlap by two pixels, to an image of zeros (N, R + 1, 4, S + 1, 4, C)."""
    r, s = tiles.shape[1], tiles.shape[3]
    image[:, :r, :, :s] = tiles[:, :, :4, :, :4]
    image[:, 1:, :2, :s] += tiles[:, :, 4:, :, :4]
    image[:, :r, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    image[:, 1:, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]
