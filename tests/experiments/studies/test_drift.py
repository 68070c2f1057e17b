"""The study of drift: its flags are good, and arms that are compared differ in what they should alone."""

from experiments.config.command_line import parse
from experiments.studies.drift import STUDY


def test_arms_of_a_group_differ_in_the_algorithm_alone() -> None:
    condition = next(iter(STUDY.conditions))
    for arm in STUDY.arms:
        [config] = parse(STUDY.flags(condition, arm, [])).configs
        base = next(a for a in STUDY.arms if a.group == arm.group and a.name == STUDY.baselines[0])
        [other] = parse(STUDY.flags(condition, base, [])).configs
        assert config.local.momentum == 0 and config.num_clients == 10 and config.cohort == 0
        assert (config.local, config.partition, config.model, config.task) == (
            *(other.local, other.partition, other.model, other.task),
        )
        assert config.strategy.name == arm.name
