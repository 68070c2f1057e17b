"""Draws from the generators of the process, as other code in it may."""

import random

import numpy as np
import torch


def draw_from_all() -> None:
    random.random()
    np.random.random(3)  # noqa: NPY002
    torch.rand(5)
