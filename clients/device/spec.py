"""The description of the experiment that a message carries to a device."""

from collections.abc import Mapping
from typing import Any

ExperimentSpec = Mapping[str, Any]
"""Names and numbers of task, partition and model in one flat mapping: the record ``experiment`` of a message.

``task``, ``partition`` and ``model`` are names of components, and ``task.alpha``, ``partition.seed`` and so on their
parameters. ``clients`` is the number of clients; ``inputs`` and ``outputs`` are the shape of one sample and the size of
the model's output; ``validation``, ``standardize``, ``standardize_on``, ``holdout_clients``, ``augment`` and, in a
run that has some, ``validation_clients`` determine how samples are prepared.
"""
