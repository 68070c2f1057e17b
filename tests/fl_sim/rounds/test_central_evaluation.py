"""``--evaluate_train``: the global model's loss and accuracy on all training samples, in float64, on every engine.

By hand: softmax regression on all rows that clients train on, by PyTorch's own functions and without batches or blocks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.config.recipe_files import make
from experiments.deploy.server_app import deployable
from experiments.run import Outcome, main, run
from experiments.runs.setup import build
from fl_sim import from_arrays, load
from fl_sim.engines import evaluate as evaluate_module
from fl_sim.engines import set_evaluation
from fl_sim.errors import ConfigError
from fl_sim.population.partition import Resampled
from fl_sim.rounds.central_evaluation import rows_of_training
from fl_sim.tree import Tree

DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(90, 4))
Y = (X @ DRAW.normal(size=(4, 3))).argmax(1)
OWNER = np.concatenate([np.full(n, c) for c, n in enumerate((5, 25, 8, 20, 12, 20))])
TASK = from_arrays(X, Y, clients=OWNER, x_test=X[:20], y_test=Y[:20])
WORLD: dict[str, Any] = {
    **{
        "task": TASK,
        "partition": "natural",
        "dtype": "float64",
        "evaluate_train": True,
        "holdout_clients": 1,
        "partition.held_out": 0.25,
    },
    **{"validation": 0.1, "cohort": 2, "rounds": 3, "local": {"batch_size": 4, "lr": 0.3}, "evaluate_every": 2},
}


def linear(inputs: object, outputs: int) -> nn.Module:
    """Softmax regression."""
    return nn.Linear(4, outputs)


def misses(outputs: Tensor, batch: Tree) -> Tensor:
    """A metric of the user's: 1 where the prediction is wrong."""
    return (outputs.argmax(1) != batch["y"]).to(outputs.dtype)


def rank_two(outputs: Tensor, targets: Tensor) -> Tensor:
    """A set metric of the user's: how many samples there are, and the largest output of all."""
    return torch.stack([torch.tensor(float(len(targets)), dtype=torch.float64), outputs.max().double()])


def by_hand(model: Tree, config: dict[str, Any]) -> tuple[float, float, int]:
    """(loss, accuracy, samples) of all that clients 0..C-2 train on: neither validation, held-out nor unseen ones."""
    setup = build(make(**config))
    partition, train = setup.partition, setup.task.train
    rows = np.concatenate([partition.client(c)[: partition.sizes(c)[0]] for c in range(len(partition) - 1)])
    assert 0 < len(rows) < setup.task.num_train < len(X)  # some are held out, unseen or kept for validation
    x, y = train["x"][rows].double(), train["y"][rows]
    outputs = x @ model["weight"].T + model["bias"]
    return F.cross_entropy(outputs, y).item(), int((outputs.argmax(1) == y).sum()) / len(y), len(y)


def one(**given: Any) -> Outcome:
    """A run."""
    outcome = run(**given)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training samples are several blocks, the last of another size."""
    for module in (evaluate_module, set_evaluation):
        monkeypatch.setattr(module, "BLOCK", 16)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_loss_and_accuracy_on_all_training_samples(engine: str, tmp_path: Path) -> None:
    """Logged with central evaluation, and in the summary; the running loss of two clients is another number."""
    config = {**WORLD, "model": linear, "engine": engine, "out": tmp_path}
    own = {"metrics": {"misses": misses}, "set_metrics": {"two": rank_two}}
    done = one(**config, **own)
    rounds, summary = done.log.rounds, done.summary
    loss, accuracy, samples = by_hand(done.model, config)
    assert rounds["train_set_loss"].notna().tolist() == [True, False, True, True]  # rounds 0, 2 and the last
    last = rounds.iloc[-1]
    assert last["train_set_loss"] == pytest.approx(loss, abs=1e-14) and last["train_set_accuracy"] == accuracy
    assert summary["train_set_loss"] == last["train_set_loss"] and summary["train_set_accuracy"] == accuracy
    assert last["train_set_misses"] == pytest.approx(1 - accuracy, abs=1e-14) and last["train_set_two"][0] == samples
    assert abs(last["train_loss"] - loss) > 0.01 and abs(last["loss"] - loss) > 1e-3
    plain = one(**{**config, "evaluate_train": False}, **own)
    assert plain.summary["digest"] == summary["digest"] and plain.log.rounds["loss"].equals(rounds["loss"])
    assert plain.log.rounds["train_set_loss"].isna().all() and plain.summary["train_set_loss"] is None


def test_runs_of_one_batch_and_a_resumed_run_log_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--task synthetic --partition natural --clients 3 --model lr --dtype float64 --rounds 2 --local.steps 2"
    words += f" --evaluate_train true --quiet --holdout_clients 1 --out {tmp_path}"
    assert main([*words.split(), "--vmap_over", "local.lr=.01,.05"]) == 0
    batch = sorted(tmp_path.iterdir())
    for folder, rate in zip(batch, ("0.01", "0.05"), strict=True):
        assert main([*words.split(), "--local.lr", rate, "--engine", "loop", "--checkpoint_every", "1"]) == 0
        alone = max(set(tmp_path.iterdir()) - set(batch), key=lambda path: path.stat().st_mtime_ns)
        for column in ("train_set_loss", "train_set_accuracy"):
            values = [load(path).rounds[column].to_numpy() for path in (folder, alone)]
            np.testing.assert_allclose(*values, rtol=0, atol=1e-12)
    resumed = load(alone).rounds["train_set_loss"].tolist()
    for file in (alone / "checkpoints").glob("*2*"):
        file.unlink()
    assert main(["--resume", str(alone), "--rounds", "3", "--quiet"]) == 0
    assert load(alone).rounds["train_set_loss"].tolist()[:3] == resumed
    assert load(alone).rounds["train_set_loss"].notna().all()


def test_devices_have_their_samples_to_themselves() -> None:
    config = make(evaluate_train=True)
    with pytest.raises(ConfigError, match=r"^evaluate_train = True: devices train on samples that the server"):
        deployable(config)
    assert deployable(config, simulated=True).evaluate_train


def test_a_set_metric_that_keeps_too_much_of_the_training_samples_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.learning.sets.set_checks.LIMIT", 25 * (3 * 8 + 8))  # the test set's 20 fit
    one_less = {**WORLD, "model": linear, "evaluate_train": False, "validation": 0.0}
    assert build(make(**one_less), set_metrics={"two": rank_two})
    with pytest.raises(ConfigError, match=r"^set_metrics: 'two' keeps .* of the training set"):
        build(make(**{**one_less, "evaluate_train": True}), set_metrics={"two": rank_two})


def test_too_many_shared_rows_are_refused() -> None:
    shared = Resampled(samples=60000, clients=15_000_001, per_client=20, seed=1)
    with pytest.raises(ConfigError, match=r"^evaluate_train = True: .* own 300000000 .*; choose fewer clients"):
        rows_of_training(shared, 1, torch.device("cpu"))
