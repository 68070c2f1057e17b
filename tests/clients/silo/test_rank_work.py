"""What each rank of a silo gets for a client's round: the samples of its own shards, and no others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clients.silo.rank_work import check_held, divided, packed, unpacked
from experiments.config.recipe_files import make
from experiments.runs.plan import first_round_plans
from experiments.runs.resume import ready
from fl_sim import from_arrays
from fl_sim.blocks.resolve import resolve

LOOP: dict[str, Any] = {"engine": "loop", "block_size": 2, "local.epochs": 1, "partition": "natural"}


def test_a_rank_holds_the_samples_of_its_shards_alone() -> None:
    x = torch.arange(30.0).reshape(30, 1)
    task = from_arrays(x, torch.arange(30) % 2, clients=torch.arange(30) % 2, test_share=0.0)
    setup = ready(
        make(task=task, model=torch.nn.Linear(1, 2), rounds=1, **{"local.batch_size": 8, "local.epochs": 1, **LOOP})
    )
    [plan] = first_round_plans(setup)
    block, _ = resolve(plan, setup.learner, setup.loss.initial())
    works = divided(block, block.jobs[0], setup.loss.initial(), setup.learner, [0, 3, 4])
    held = [set(work.data["x"].ravel().tolist()) for work in works]
    assert held[0] | held[1] == set(range(0, 30, 2)) and not held[0] & held[1]  # one epoch takes each sample once
    assert [part.samples for part in works[0].streams["train"]] == [8, 7]
    assert [len(part.rows) for part in works[1].streams["train"]] == [2, 1]  # shards of 2, 2, 2, 2 and 2, 2, 2, 1
    for rank, work in enumerate(works):
        check_held(work, rank)
        more = {k: np.concatenate([v, v[:1]]) for k, v in work.data.items()}
        with pytest.raises(AssertionError, match="samples that the rank's shards do not need"):
            check_held(replace(work, data=more), rank)
    with pytest.raises(AssertionError, match="a part of another rank"):
        check_held(works[0], 1)


def test_what_pickle_cannot_name_goes_by_value() -> None:
    def own(x: int) -> int:
        return x + 1

    assert unpacked(packed(own))(1) == 2 and unpacked(packed({"a": 1})) == {"a": 1}
