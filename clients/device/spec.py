"""What a message tells a device about the experiment."""

from collections.abc import Mapping
from typing import Any

ExperimentSpec = Mapping[str, Any]
"""Names and numbers of task, partition and model in one flat mapping: the record ``experiment`` of a message.

``task``, ``partition`` and ``model`` are names of components, and ``task.alpha``, ``partition.seed`` and so on their
parameters. ``clients`` is the number of clients; ``inputs`` and ``outputs`` are the shape of one sample and the size of
the model's output; ``validation``, ``standardize`` and ``augment`` say how samples are prepared.
"""
