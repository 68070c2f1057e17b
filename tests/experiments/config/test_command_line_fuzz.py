"""Settings at random, of the right type or not: a config that can be stored and read again, or one line of an error."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from experiments.config.command_line import parse
from experiments.config.recipe_files import make
from experiments.config.schema import known_keys
from experiments.config.stored import stored_config
from fl_sim.errors import ConfigError

KEYS = [*known_keys(), "strategy.mu", "strategy.order", "strategy.maml.order", "partition.alpha", "partition.held_out"]
KEYS += ["task.class_axis", "model.hidden", "local", "strategy", "task", "nonsense", "local.nonsense", "a.b.c", ""]
WORDS = ["", " ", "auto", "maml", "fedavg,maml", "0..3", "0..10000000000000000000", "1e400", "-1", "nan", ":", "os:"]
WORDS += [
    "1",
    "0.5",
    "true",
    "raise",
    "tolerate:0.5",
    "cuda:0",
    "sgd",
    "adam",
    "../x",
    "\x00",
    "none",
    "--seed",
    "f1,f1",
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([10**18, -(10**18), 2**63, 2**64]),
    st.floats(),
    st.sampled_from(WORDS),
    st.lists(st.one_of(st.integers(-1, 3), st.sampled_from(WORDS)), max_size=3),
    st.dictionaries(st.sampled_from(["name", "lr", "mu", ""]), st.integers(0, 2), max_size=2),
)


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path, value = tmp_path / "deep.toml", list[Any]()
    for text in ("rounds = " + "[" * 5000 + "]" * 5000, "rounds = " + "[" * 30 + "]" * 30, "[" + "a." * 5000 + "a]"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"deep.toml: .*nested too deeply"):
            make(str(path))
    value.append(value)
    with pytest.raises(ConfigError, match="seed: its value is nested too deeply"):
        make(seed=value, rounds=1)


@bounds(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_settings_from_python_make_a_config_or_one_line(given_settings: dict[str, Any]) -> None:
    try:
        config = make(**given_settings)
    except ConfigError:
        return
    assert stored_config(config.to_dict()) == config and config.to_toml()


@bounds(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, *WORDS])), min_size=1, max_size=3))
def test_flags_make_configs_or_one_line(flags: list[tuple[str, str | None]]) -> None:
    words = [f"--{key}" if text is None else f"--{key}={text}" for key, text in flags]
    problem = ""
    try:
        assert parse(words).configs
    except ConfigError as error:
        problem = str(error)
    assert "\n" not in problem
