"""The study of codecs: its flags are good, and arms differ in the codec alone."""

from dataclasses import replace

import pytest

from experiments.config.choices import offered
from experiments.config.command_line import parse
from experiments.studies.arms import Arm
from experiments.studies.codecs import STUDY


@pytest.mark.parametrize("arm", STUDY.arms, ids=lambda arm: arm.name)
def test_an_arm_differs_from_fedavg_in_its_codec_alone(arm: Arm) -> None:
    condition = next(iter(STUDY.conditions))
    if "powersgd" in arm.flags and "powersgd" not in offered("codec"):
        pytest.skip("powersgd is not there")
    [base] = parse(STUDY.flags(condition, STUDY.arms[0], [])).configs
    [config] = parse(STUDY.flags(condition, arm, [])).configs
    assert replace(config, codec=base.codec) == base
    assert (config == base) is (arm.name == "fedavg")


def test_clients_are_few_of_many_or_all() -> None:
    for condition in STUDY.conditions:
        [config] = parse(STUDY.flags(condition, STUDY.arms[0], [])).configs
        assert (config.num_clients, config.cohort) == ((20, 0) if condition.endswith("all") else (100, 10))
