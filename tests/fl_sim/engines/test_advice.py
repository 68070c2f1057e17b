"""What a client's failure says where a setting is its cure: BatchNorm and a batch of one sample."""

from typing import Any

import pytest
import torch

from fl_sim import RoundFailed
from fl_sim.engines.evaluate import evaluate
from strategies.fedavg import FedAvg
from strategies.maml import MAML
from tests.fl_sim.small_federation import federation, network, train


@pytest.mark.parametrize(
    ("strategy", "size", "settings", "cure"),
    [
        (FedAvg, 5, {}, "local.last_batch = 'keep': of 5 samples in batches of 4, one is left for the last batch; "
         "choose drop (leave it out) or join (add it to the batch before), or use a network with GroupNorm"),
        (FedAvg, 5, {"local.batch_size": 1}, "local.batch_size = 1; choose at least 2, or use a network with"),
        (FedAvg, 1, {}, "a batch of one sample, from a client with 1 for training; give it more samples, or use"),
        (MAML, 2, {"local.last_batch": "join"}, "a batch of one sample, from a client with 2 for training; give it"),
    ],
)  # fmt: skip
def test_a_batch_of_one_names_its_cure(strategy: Any, size: int, settings: dict[str, Any], cure: str) -> None:
    with pytest.raises(RoundFailed) as failed:
        train(strategy(), [size, 8], {"local.batch_size": 4, **settings})
    last = str(failed.value).splitlines()[-1]
    assert cure in last and "Expected more than 1 value per channel" in str(failed.value)


def test_other_failures_are_not_advised() -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) == 1:
                raise RuntimeError("one")
            return x @ self.w

    with pytest.raises(RoundFailed) as failed:
        train(FedAvg(), [5], {"local.batch_size": 4}, module=Broken())
    assert str(failed.value).splitlines()[-1] == "RuntimeError: one"


@pytest.mark.parametrize("kind", ["drop", "join"])
def test_the_cures_train_every_client(kind: str) -> None:
    result = train(FedAvg(), [5, 8], {"local.batch_size": 4, "local.last_batch": kind})
    assert [result.rows[1]["completed"], result.rows[1]["steps"]] == [2, 1 + 2]


def test_a_network_without_statistics_cannot_evaluate_one_sample() -> None:
    loss, _ = federation([5], network(torch.nn.BatchNorm1d(4, track_running_stats=False)))
    samples = {k: v.double() if k == "x" else v for k, v in loss.task.test.items()}
    assert evaluate(loss, loss.initial(), samples)["loss"] > 0
    with pytest.raises(ValueError, match=r"1 samples are evaluated 500 at a time; .* leave track_running_stats=True"):
        evaluate(loss, loss.initial(), {k: v[:1] for k, v in samples.items()})
