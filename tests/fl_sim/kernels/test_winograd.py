"""Winograd's convolution against PyTorch's own, forward and backward."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fl_sim.kernels import winograd
from fl_sim.kernels.winograd import Conv3x3, supports

SHAPES = [  # samples, channels in and out, height, width, padding
    (33, 32, 64, 6, 6, 0),  # one tile a sample
    (35, 32, 64, 4, 4, 1),
    (16, 40, 56, 9, 6, 0),  # 7 x 4 outputs: the last row of tiles is not full
    (4, 64, 32, 7, 16, 1),
    (11, 33, 65, 30, 30, 0),  # 49 tiles a sample: groups of 5, 5 and 1 samples
    (1, 3, 5, 70, 70, 1),  # more tiles a sample than a group has
]


def both(conv: nn.Conv2d, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients (of x, weight, bias) by PyTorch and by ``Conv3x3``."""
    fast, results = copy.deepcopy(conv), []
    fast.__class__ = Conv3x3
    for layer in (conv, fast):
        y = layer(x)
        outer = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        results.append([y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], outer)])
    return results[0], results[1]


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[nn.Conv2d, Tensor]:
    n, c, k, height, width, pad = shape
    torch.manual_seed(0)
    return nn.Conv2d(c, k, 3, padding=pad).to(dtype), torch.randn(n, c, height, width, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"]
)
def test_it_is_the_convolution(
    shape: tuple[int, ...], dtype: torch.dtype, close: float, layout: torch.memory_format
) -> None:
    """To rounding: the transforms multiply by up to 8^2 and sum 36 terms, which costs a digit of float32's seven."""
    conv, x = inputs(shape, dtype)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    expected, seen = both(conv, x)
    for a, b in zip(expected, seen, strict=True):
        assert a.shape == b.shape and float((a - b).abs().max()) <= close * float(a.abs().max())
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert any(not torch.equal(a, b) for a, b in zip(expected, seen, strict=True))  # another arithmetic was used indeed


def test_groups_of_samples_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = inputs((9, 32, 64, 10, 10, 0), torch.float64)
    _, once = both(conv, x)
    monkeypatch.setattr(winograd, "TILES", 1)
    for a, b in zip(once, both(conv, x)[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_without_bias_and_with_what_is_frozen() -> None:
    conv, x = inputs((8, 32, 64, 10, 10, 0), torch.float64)
    bare = nn.Conv2d(32, 64, 3, bias=False).double()
    for a, b in zip(*both(bare, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    conv.__class__ = Conv3x3
    conv(x.detach()).sum().backward()
    expected = torch.autograd.grad(nn.functional.conv2d(x.detach(), conv.weight, conv.bias).sum(), conv.weight)[0]
    torch.testing.assert_close(conv.weight.grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 32, 64, 5, 5, 1), (31, 32, 64, 6, 6, 0)])
def test_few_tiles_or_tiles_mostly_empty_are_left_to_pytorch(shape: tuple[int, ...]) -> None:
    """5 x 5 outputs fill 25 of the 64 places of four tiles; 31 tiles are too few for the transform of the filters."""
    expected, seen = both(*inputs(shape, torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(expected, seen, strict=True))


@pytest.mark.parametrize(
    "conv, expected",
    [
        (nn.Conv2d(32, 64, 3), True),
        (nn.Conv2d(64, 64, 3, padding=1, bias=False), True),
        (nn.Conv2d(32, 32, 3), False),  # too few channels to pay for the transforms
        (nn.Conv2d(64, 64, 3, stride=2), False),
        (nn.Conv2d(64, 64, 5), False),
        (nn.Conv2d(64, 64, 3, padding=2), False),
        (nn.Conv2d(64, 64, 3, padding="same"), False),
        (nn.Conv2d(64, 64, 3, dilation=2), False),
        (nn.Conv2d(64, 64, 3, groups=2), False),
        (nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"), False),
    ],
)
def test_which_layers_are_supported(conv: nn.Conv2d, expected: bool) -> None:
    assert supports(conv) == expected
