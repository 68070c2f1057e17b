"""The batches of a pass: what becomes of a last batch that is smaller."""

from dataclasses import replace

import numpy as np
import pytest

from clients.personalize import Personalize
from clients.rules import rule_for
from experiments.config.recipe_files import make
from experiments.runs.setup import messages
from fl_sim.learning.rule import Draw, LocalRule, Sizes, passes, slices_of_pass
from fl_sim.learning.settings import Local
from strategies.fedavg import FedAvg
from strategies.maml import MAML
from strategies.perfedavg import PerFedAvg
from strategies.reptile import Reptile


@pytest.mark.parametrize(
    ("n", "keep", "drop", "join"),
    [
        (17, [16, 1], [16], [17]),
        (33, [16, 16, 1], [16, 16], [16, 17]),
        (18, [16, 2], [16], [16, 2]),  # the remainder is 2: nothing is joined
        (16, [16], [16], [16]),
        (5, [5], [5], [5]),  # the only batch of a client with fewer than B samples stays
        (1, [1], [1], [1]),
    ],
)
def test_a_last_batch_is_kept_dropped_or_joined(n: int, keep: list[int], drop: list[int], join: list[int]) -> None:
    for kind, expected in (("keep", keep), ("drop", drop), ("join", join)):
        local = Local(batch_size=16, epochs=2, last_batch=kind)  # type: ignore[arg-type]
        assert [len(batch) for batch in passes(np.arange(n), local, 3)] == 2 * expected
    for size in (0, 1):  # all samples a step, or one: no pass has a smaller last batch
        assert len({tuple(map(str, slices_of_pass(n, Local(batch_size=size, last_batch=k)))) for k in KINDS}) == 1


KINDS = ("keep", "drop", "join")


def test_all_kinds_take_the_samples_in_the_same_order() -> None:
    """With 2 n + 1 samples of batches of n, drop and keep begin alike, and join has the samples of keep."""
    keep, drop, join = (passes(np.arange(9), Local(batch_size=4, last_batch=kind), 5) for kind in KINDS)
    assert [b.tolist() for b in drop] == [b.tolist() for b in keep[:2]]
    assert np.array_equal(np.concatenate(join), np.concatenate(keep)) and len(join) == 2


def test_steps_go_over_as_many_passes_as_needed() -> None:
    """Five steps of 16 of 17 samples: with drop they are the first batches of five passes."""
    lengths = {
        k: [len(b) for b in passes(np.arange(17), Local(batch_size=16, steps=5, last_batch=k), 1)] for k in KINDS
    }
    assert lengths == {"keep": [16, 1, 16, 1, 16], "drop": [16] * 5, "join": [17] * 5}


@pytest.mark.parametrize(
    "rule", [FedAvg(), Reptile(), PerFedAvg(order="exact"), MAML(inner_steps=3), Personalize(5, 0.1, 4)]
)
@pytest.mark.parametrize("kind", ["drop", "join"])
def test_every_rule_draws_batches_as_it_is_set(rule: LocalRule, kind: str) -> None:
    """Of 9 samples (MAML: halves of 5) in batches of 4 one is left over in each pass; no batch may have it alone."""
    local = Local(batch_size=4, epochs=3, last_batch=kind)  # type: ignore[arg-type]
    if isinstance(rule, Personalize):
        rule = replace(rule, last_batch=kind)  # type: ignore[arg-type]
    streams = rule.streams(Sizes(10 if isinstance(rule, MAML) else 9, 3), local, Draw(0, 1, 2))
    lengths = {len(batch) for name, stream in streams.items() if name != "test" for batch in stream}
    assert lengths == ({4} if kind == "drop" else {5} if isinstance(rule, MAML) else {4, 5})


def test_personal_evaluation_gets_the_setting_in_its_message() -> None:
    _, personal = messages(make(local={"last_batch": "drop"}, personalize_steps=1, partition={"held_out": 0.2}))
    rule = rule_for("evaluate", personal)
    assert isinstance(rule, Personalize) and rule.last_batch == "drop"
