"""The study of personal models: its flags are good, and trials see other pictures than the runs that are reported."""

from experiments.config.command_line import parse
from experiments.studies.personal import AFTER, BEFORE, PICTURES, STUDY


def test_arms_differ_in_the_algorithm_alone_and_are_judged_by_the_client_s_own_model() -> None:
    [condition] = STUDY.conditions
    base = None
    for arm in STUDY.arms:
        [config] = parse(STUDY.flags(condition, arm, [])).configs
        own = config.local, config.partition, config.model, config.task, config.personalize_steps
        base = base or own
        assert own == base and arm.column == (AFTER if config.strategy.name == "fedavg" else BEFORE)
        trials = STUDY.trials_of(arm)
        assert trials.column == arm.column and list(trials.flags) == ["--task.skip", str(PICTURES)]
    assert base is not None and base[3].params["train"] == PICTURES
