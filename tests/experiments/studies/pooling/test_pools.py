"""The study of pools: arms of a group differ in the pool, or the server's step, alone."""

from dataclasses import replace

from experiments.config.command_line import parse
from experiments.studies.pooling.pools import LR, MLP, STUDY


def test_arms_of_a_group_differ_in_the_pool_and_the_servers_step_alone() -> None:
    condition = "2-shard"
    for group in dict.fromkeys(arm.group for arm in STUDY.arms):
        configs = [parse(STUDY.flags(condition, arm, [])).configs[0] for arm in STUDY.arms if arm.group == group]
        alike = {repr(replace(c, strategy=configs[0].strategy, server=configs[0].server)) for c in configs}
        assert len(alike) == 1 and configs[0].model.name == ("lr" if group == LR else "mlp")
        if group == MLP:
            assert configs[0].model.params["hidden"] == 64 and len(configs) == 9
