"""``python -m experiments.list``: every component and recipe is listed, with help and parameters."""

import json
import subprocess
import sys

import pytest

from experiments import list as listed
from experiments.config.choices import PACKAGES, offered


def test_the_listing_has_every_component_with_a_line_of_help_and_its_parameters() -> None:
    rows = listed.listing()
    for kind in PACKAGES:
        components = rows[listed.PLURALS[kind]]
        assert [component["name"] for component in components] == list(offered(kind))
        assert [component["name"] for component in components if not component["help"]] == []
    by_name = {row["name"]: row["parameters"] for row in rows["strategies"] + rows["partitions"]}
    assert by_name["fedprox"] == {"mu": 0.01} and by_name["fedavg"] == {}
    common = {"seed": 0, "held_out": 0.0, "unseen_held_out": None, "feature_shift": 0.0}
    assert by_name["shards"] == {"shards_per_client": 2, **common}
    assert "quickstart" in [recipe["name"] for recipe in rows["recipes"]] and all(
        recipe["help"] for recipe in rows["recipes"]
    )


def test_text_shows_parameters_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed.main([]) == 0
    text = capsys.readouterr().out
    assert "--strategy.mu 0.01" in text and "python -m experiments.run NAME" in text
    assert max(map(len, text.splitlines())) <= 100 and text.count("--partition.held_out 0.0") == 1
    assert [row["name"] for rows in listed.listing().values() for row in rows if row["name"] not in text] == []


def test_the_command_prints_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.list", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == listed.listing()


def test_some_kinds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed.main(["strategy", "pools"]) == 0
    text = capsys.readouterr().out
    assert "fedprox" in text and "geometric-median" in text and "dirichlet" not in text
    assert listed.main(["strategeis"]) == 2
    assert "did you mean 'strategies'?" in capsys.readouterr().err
