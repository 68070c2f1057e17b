"""The study of FedBN: its arms differ in the algorithm alone, and are judged on pictures that differ by client."""

from experiments.config.command_line import parse
from experiments.studies.fedbn_mnist import RECIPE, STUDY


def test_arms_differ_in_the_algorithm_alone() -> None:
    [condition] = STUDY.conditions
    configs = [parse([RECIPE, *STUDY.flags(condition, arm, [])]).configs[0] for arm in STUDY.arms]
    assert [config.strategy.name for config in configs] == ["fedavg", "local-only", "fedbn", "fedavg"]
    assert [arm.column for arm in STUDY.arms] == [
        "",
        "",
        "",
        "personal_accuracy",
    ]  # the last is judged after fine-tuning
    for config in configs:
        assert config.partition.params["feature_shift"] == 1 and config.personalize_steps and config.cohort == 0
        assert (config.local, config.partition, config.model) == (
            configs[0].local,
            configs[0].partition,
            configs[0].model,
        )
