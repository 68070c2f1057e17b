"""All clients train, and the global model is the mean of those that were drawn."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.run import Outcome, run
from experiments.studies.meta import all_train
from fl_sim import rng

NAME = "experiments.studies.meta.all_train:AllTrain"
COMMON: dict[str, Any] = {"task": "digits", "model": "lr", "clients": 2, "rounds": 1, "dtype": "float64", "quiet": True}


def outcome(out: Path, strategy: str, **more: Any) -> Outcome:
    found = run(strategy=strategy, out=out, **{"local.lr": 0.01, **COMMON, **more})
    assert isinstance(found, Outcome) and found.log.rounds["completed"].iloc[-1] == 2
    return found


def test_the_mean_over_the_clients_that_may_be_drawn_is_pfedme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one averaged, the two possible models are those of the clients: their mean is that of pFedMe."""
    everybody = outcome(tmp_path, "pfedme")
    assert outcome(tmp_path, NAME, **{"strategy.averaged": 9}).summary["digest"] == everybody.summary["digest"]
    models = []
    for client in range(2):
        fixed = SimpleNamespace(key=rng.key, sample=lambda *_, chosen=client: [chosen])
        monkeypatch.setattr(all_train, "rng", fixed)
        models.append(outcome(tmp_path, NAME, **{"strategy.averaged": 1}).model)
    for k, expected in everybody.model.items():
        torch.testing.assert_close(sum(model[k] for model in models) / 2, expected, rtol=0, atol=1e-14)
        assert not torch.allclose(models[0][k], models[1][k])
