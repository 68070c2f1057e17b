"""The study of hierarchies: each arm's clients take the same steps, and each arm is evaluated at the same of them."""

from experiments.config.command_line import parse
from experiments.studies.pooling.hierarchy import POOLINGS, STEPS, STUDY


def test_arms_have_the_same_steps_and_are_evaluated_after_the_same_ones() -> None:
    configs = {arm.name: parse(STUDY.flags("2-shard", arm, [])).configs[0] for arm in STUDY.arms}
    for config in configs.values():
        assert config.rounds * config.local.steps == STEPS * POOLINGS
        assert config.evaluate_every * config.local.steps == STEPS
    assert {*STUDY.baselines} <= {*configs}
