"""Checks of the sample shapes and the parameters of models."""

import math


def flat(model: str, inputs: tuple[int, ...]) -> int:
    """The number of values in one sample of shape ``inputs``. Raises ValueError for a sample without axes or values."""
    if not inputs or not math.prod(inputs):
        problem = f"model.name = {model!r}: cannot take samples of shape {inputs}"
        raise ValueError(f"{problem}; give x an axis of features: (N, 1) instead of (N,)")
    return math.prod(inputs)


def image(model: str, inputs: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """(channels, height, width) of one sample.

    Raises ValueError unless the sample is a picture with a height and a width of at least ``smallest`` pixels.
    """
    if len(inputs) != 3 or inputs[0] < 1 or min(inputs[1:]) < smallest:
        raise ValueError(
            f"model.name = {model!r}: cannot take samples of shape {inputs}; "
            f"it needs (channels, height, width) of at least {smallest} x {smallest} pixels; "
            "models for any shape: lr, 2nn, mlp; for small pictures: cnn-gn, resnet18"
        )
    return inputs[0], inputs[1], inputs[2]


def positive(key: str, value: int) -> None:
    """Raise ValueError that names the parameter ``key`` unless value >= 1."""
    if value < 1:
        raise ValueError(f"model.{key} = {value}: must be at least 1")
