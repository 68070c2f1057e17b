"""The study of attacks: every rule meets the same malicious clients, rates and rounds; its flags are good."""

import pytest

from experiments.config.command_line import parse
from experiments.studies.pooling.robust import ATTACKS, CLIENTS, MALICIOUS, RATE, RULES, SHARE, STUDY, TASKS


@pytest.mark.parametrize("task", TASKS)
def test_rules_differ_in_the_strategy_alone(task: str) -> None:
    seen = []
    for arm in STUDY.arms:
        if arm.group == task:
            [config] = parse([*STUDY.flags("alie", arm, []), "--local.lr", f"{RATE}"]).configs
            assert config.attack.name == "alie" and config.attack.params["share"] == SHARE
            assert config.num_clients == CLIENTS and config.evaluate_every == config.rounds
            seen.append((config.task, config.partition, config.model, config.local, config.rounds, config.engine))
    assert len(seen) == len(RULES) and all(own == seen[0] for own in seen)


@pytest.mark.parametrize("title", ATTACKS)
def test_every_attack_has_good_flags(title: str) -> None:
    [config] = parse(STUDY.flags(title, STUDY.arms[0], [])).configs
    assert (config.attack.name == "none") == (title == "none")


def test_rules_that_are_told_how_many_are_malicious_are_told_the_truth() -> None:
    by_name = {arm.name: parse(STUDY.flags("none", arm, [])).configs[0].strategy.params for arm in STUDY.arms}
    assert by_name["Krum"]["num_malicious_nodes"] == MALICIOUS == round(SHARE * CLIENTS)
    assert by_name["trimmed mean"]["share"] == SHARE
