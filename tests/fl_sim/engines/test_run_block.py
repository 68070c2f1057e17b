"""When memory runs out a block runs again with half the inner chunk, and the log records it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.run import run
from fl_sim import tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

MAX_CLIENTS = 3
"""Clients that fit into memory at once."""


@dataclass
class Hungry(FedAvg):
    """FedAvg whose clients run out of memory when more than MAX_CLIENTS run at once."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        listed = list(batches["train"])
        index = listed[0].data["y"]
        if (
            torch._C._functorch.is_batchedtensor(index)
            and torch._C._functorch.get_unwrapped(index).shape[0] > MAX_CLIENTS
        ):
            raise torch.OutOfMemoryError("out of memory")
        return super().local_update(model, state, {"train": listed}, loss, local_)


SETTINGS: dict[str, Any] = {"clients": 16, "rounds": 2, "block_size": 8, "engine": "vmap", "dtype": "float64"}


def test_the_chunk_is_halved_until_it_fits_and_the_log_records_it(tmp_path: Path) -> None:
    small = run(strategy=Hungry(), out=str(tmp_path), **SETTINGS)
    assert small.summary["status"] == "completed" and small.summary["bits_changed"] is True
    assert small.log.config["chunk"] == 2  # 8, 4, 2
    [event] = small.log.events[small.log.events["event"] == "out_of_memory"].to_dict("records")
    assert (event["chunk"], event["before"], event["round"]) == (2, 0, 1)
    assert small.summary["clients_failed"] == 0
    again = run(strategy=Hungry(), out=str(tmp_path), chunk=2, **SETTINGS)  # as in its config.toml
    assert again.summary["digest"] == small.summary["digest"] and again.summary["bits_changed"] is False
    plain = run(strategy=FedAvg(), out=str(tmp_path), **SETTINGS)
    assert float(tree.norm(tree.sub(plain.model, small.model))) < 1e-9


def test_a_client_that_never_fits_into_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Starved(FedAvg):
        def local_update(self, *args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    from fl_sim import RoundFailed

    with pytest.raises(RoundFailed, match=r"client \d+.*(?s:.)*CUDA out of memory"):
        run(strategy=Starved(), out=str(tmp_path), **SETTINGS)
