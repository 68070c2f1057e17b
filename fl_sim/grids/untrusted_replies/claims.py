"""Single values that a client claims: numbers, weights, counts."""

import math
from collections.abc import Mapping
from typing import Any

MOST_STEPS = 10**12
"""The largest number of local steps that is believed."""


def weight_problem(values: Mapping[str, Any], key: str, most: float, zero_is_failure: bool = False) -> str:
    """Why the weight ``values[key]`` must not be used, or ""; a reply without one weighs 1."""
    weight = values.get(key, 1)
    if type(weight) in (int, float) and 0 < weight <= most < math.inf:  # the common case, without further calls
        return ""
    if not is_number(weight) or not finite(weight) or weight < 0 or (weight == 0 and zero_is_failure):
        least = "a positive finite number" if zero_is_failure else "a finite number, at least 0"
        return f"{key} = {shortened(weight)}: a weight must be {least}"
    if weight > most:
        return f"{key} = {weight!r}: a weight must be at most {most:g} here (system.max_examples)"
    return ""


def is_number(value: object) -> bool:
    """Whether a value is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite(value: float) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def whole(values: Mapping[str, Any], key: str, most: float) -> str:
    """Why ``values[key]`` is no whole number in 0..most, or ""."""
    value: Any = values.get(key)
    number = value if is_number(value) and finite(value) else -1
    if number != int(number) or not 0 <= number <= most:
        return f"{key} = {shortened(value)}: must be a whole number in 0..{most:.15g}"
    return ""


def shortened(value: object) -> str:
    """A value as text of at most 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."
