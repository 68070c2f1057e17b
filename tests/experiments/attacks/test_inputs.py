"""The catalogue of bad inputs, and what counts as a refusal of one."""

import re
from typing import Any

import pytest

from experiments.attacks.input_cases import Input
from experiments.attacks.input_settings import catalogue
from experiments.attacks.inputs import verdict

GOOD = {"code": 2, "err": "warning: x\nerror: rounds = 'nan': must be a whole number\n", "raised": "", "made": False}


def test_the_catalogue_has_many_inputs_each_once_with_a_pattern() -> None:
    inputs = catalogue()
    names = [one.name for one in inputs]
    assert len(inputs) > 800 and len(set(names)) == len(names)
    assert all(bool(one.words or one.code) and re.compile(one.says) and one.says for one in inputs)


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ({}, "refused"),
        ({"code": None}, "no end"),
        ({"code": -9}, "no end"),
        ({"code": 0}, "accepted in silence"),
        ({"code": 1}, "another exit code"),
        ({"made": True}, "another exit code"),
        ({"err": "Traceback (most recent call last):\nrounds = 'nan'"}, "a traceback"),
        ({"err": "error: rounds: must be a whole number"}, "does not say what is wrong"),
        ({"err": "error: rounds = 'nan'\nand more"}, "does not say what is wrong"),
    ],
)
def test_only_one_line_that_names_the_key_and_the_value_is_a_refusal(end: dict[str, Any], found: str) -> None:
    assert verdict(Input("n", "rounds = 'nan'", "run --rounds nan"), {**GOOD, **end}) == found


def test_from_python_a_refusal_is_a_value_error_and_a_note_may_be_one() -> None:
    code = Input("n", "rounds = 'nan'", code="run(rounds='nan')")
    assert verdict(code, {**GOOD, "raised": "ConfigError ValueError Exception"}) == "refused"
    assert verdict(code, {**GOOD, "raised": "TypeError Exception"}) == "a traceback"
    noted = Input("n", "x.png", "run", noted=True)
    assert verdict(noted, {**GOOD, "code": 0, "err": "note: x.png is left out"}) == "refused"
    assert verdict(noted, {**GOOD, "code": 0, "err": ""}) == "accepted in silence"
