"""Runs with losses of a user's own: the loop and vmap give the same numbers, PyTorch's."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.config.recipe_files import make_each
from experiments.run import Outcome, run
from experiments.runs.lockstep import run_together
from fl_sim import from_arrays, load, rng
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree

DRAW = np.random.default_rng(0)
OWNERS = np.repeat([0, 1, 2, 3], [3, 17, 8, 12])
"""Clients of unequal size: under vmap batches and steps are padded."""
X = DRAW.normal(size=(40, 6))
CLASSES = DRAW.integers(0, 3, 40)
TARGETS = X[:, :2] + 0.1 * DRAW.normal(size=(40, 2))
PLACES = DRAW.integers(0, 3, (40, 6))
HOLES = np.where(DRAW.random((40, 6)) < OWNERS[:, None] / 3, -100, PLACES)
"""Of the last client no label counts, so that it has batches without any."""
SOME = np.where(DRAW.random(40) < 0.4, -100, CLASSES)


class Tagger(nn.Module):
    """Scores of three classes at each place, (B, K, T) or (B, T, K)."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(1, 3, 3, padding=1), last

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.conv(x[:, None])
        return outputs.transpose(1, 2) if self.last else outputs


def scores(o: Tensor, b: Tree, **arguments: Any) -> Tensor:
    return F.cross_entropy(o, b["y"], **arguments)


def flat(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def class_weighted(o: Tensor, b: Tree) -> Tensor:
    """A mean with a weight for each class."""
    return F.cross_entropy(o, b["y"], weight=torch.tensor([1.0, 2.0, 5.0]).to(o))


def counting(o: Tensor, b: Tree) -> Tensor:
    """A user's own loss with ignored labels: the mean over a sample's labels that count."""
    return F.cross_entropy(o, b["y"], reduction="none").sum(1) / (b["y"] != -100).sum(1).clamp(min=1)


LOSSES: dict[str, tuple[Any, nn.Module, dict[str, Any], str]] = {
    "cross-entropy": (CLASSES, nn.Linear(6, 3), {}, "vmap"),
    "a number a sample": (CLASSES, nn.Linear(6, 3), {"loss": partial(scores, reduction="none")}, "vmap"),
    "a scalar": (CLASSES, nn.Linear(6, 3), {"loss": scores}, "loop"),
    "weighted": (CLASSES, nn.Linear(6, 3), {"loss": class_weighted}, "loop"),
    "weighted, a sample": (
        CLASSES,
        nn.Linear(6, 3),
        {"loss": lambda o, b: class_weighted(o, b).expand(len(o))},
        "loop",
    ),
    "squares": (TARGETS, nn.Linear(6, 2), {}, "vmap"),
    "absolute": (TARGETS, nn.Linear(6, 2), {"loss": lambda o, b: flat(F.l1_loss(o, b["y"], reduction="none"))}, "vmap"),
    "places": (PLACES, Tagger(), {}, "vmap"),
    "places last": (PLACES, Tagger(True), {"class_axis": -1}, "vmap"),
    "places, own": (PLACES, Tagger(), {"loss": lambda o, b: flat(scores(o, b, reduction="none"))}, "vmap"),
    "holes": (HOLES, Tagger(), {}, "vmap"),
    "holes, own": (HOLES, Tagger(), {"loss": counting, "ignore_index": -100}, "vmap"),
    "holes, a scalar": (HOLES, Tagger(), {"loss": scores, "ignore_index": -100}, "loop"),
    "rows left out": (SOME, nn.Linear(6, 3), {}, "vmap"),
}


def outcome(kind: str, engine: str, out: Path, **settings: Any) -> Outcome:
    """One round in float64, with personal evaluation."""
    y, module, options, _ = LOSSES[kind]
    with rng.keyed_globals(0):
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                layer.reset_parameters()
    task = from_arrays(X, y, x_test=X, y_test=y, clients=OWNERS, **options)
    given = {
        **{"rounds": 1, "dtype": "float64", "local.batch_size": 5, "local.lr": 0.3, "personalize_steps": 1},
        **{"partition.held_out": 0.3, "out": str(out), "engine": engine, **settings},
    }
    return run(model=module, task=task, **given)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loop_and_vmap_give_the_same_numbers(kind: str, tmp_path: Path) -> None:
    loop, vmap = (outcome(kind, engine, tmp_path) for engine in ("loop", "vmap"))
    assert (loop.summary["engine"], vmap.summary["engine"]) == ("loop", LOSSES[kind][3])
    for name, value in loop.model.items():
        torch.testing.assert_close(vmap.model[name], value, rtol=0, atol=1e-12)
    columns = ["train_loss", "loss", "personal_loss_before", "personal_loss"]
    columns += [f"{prefix}accuracy" for prefix in ("", "personal_") if LOSSES[kind][0] is not TARGETS]
    a, b = (result.log.rounds[columns].to_numpy(float) for result in (loop, vmap))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)
    assert np.isfinite(a[-1]).all()
    events = vmap.log.events
    assert not {"fallback", "failure"} & set(events.event)
    if LOSSES[kind][0] is HOLES:
        assert loop.log.rounds.personal_clients.iloc[-1] == 3  # the last client has no label to be evaluated on
    [note] = events.note[events.event == "start"]
    assert ("vmap pads batches" in note) == (LOSSES[kind][3] == "loop")


@pytest.mark.parametrize("kind", ["holes", "holes, own", "holes, a scalar", "places last"])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_step_is_pytorchs(kind: str, engine: str, tmp_path: Path) -> None:
    """One client, one step of all samples: w - lr * gradient of F.cross_entropy, whose mean is over what counts."""
    result = outcome(
        kind, engine, tmp_path, clients=1, partition="iid", personalize_steps=0, **{"local.batch_size": 0},
        **{"partition.held_out": 0.0},
    )  # fmt: skip
    y, module, _, _ = LOSSES[kind]
    module.double()
    outputs = module(torch.from_numpy(X))
    outputs = outputs.transpose(1, 2) if kind == "places last" else outputs
    value = F.cross_entropy(outputs, torch.from_numpy(y))
    slopes = torch.autograd.grad(value, list(module.parameters()))
    assert result.log.rounds.train_loss.iloc[-1] == pytest.approx(value.item(), abs=1e-12)
    for (name, weight), slope in zip(module.named_parameters(), slopes, strict=True):
        torch.testing.assert_close(result.model[name], weight.detach() - 0.3 * slope, rtol=0, atol=1e-12)
    module.load_state_dict(result.model)
    after = module(torch.from_numpy(X))
    after = after.transpose(1, 2) if kind == "places last" else after
    last = F.cross_entropy(after, torch.from_numpy(y)).item()
    assert result.log.rounds.loss.iloc[-1] == pytest.approx(last, abs=1e-12)
    module.float()


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_training_loss_of_several_steps_is_over_all_labels_that_count(engine: str, tmp_path: Path) -> None:
    """With lr = 0 the model stays, so that the loss over batches of 5 is that of all samples at once."""
    settings = {"clients": 1, "partition": "iid", "personalize_steps": 0, "partition.held_out": 0.0, "local.lr": 0.0}
    result = outcome("holes", engine, tmp_path, **settings)
    network = Tagger().double()
    network.load_state_dict(result.model)
    expected = F.cross_entropy(network(torch.from_numpy(X)), torch.from_numpy(HOLES)).item()
    assert result.log.rounds.train_loss.iloc[-1] == pytest.approx(expected, abs=1e-12)


def test_a_mean_over_classes_of_a_batch_is_reported_with_a_warning(tmp_path: Path) -> None:
    events = outcome("weighted", "loop", tmp_path, personalize_steps=0).log.events
    [note] = events.note[events.event == "start"]
    assert note.startswith("the loss gives a scalar that is no mean over samples: over several batches, the mean of")


def test_a_loss_of_another_shape_is_refused_before_work(tmp_path: Path) -> None:
    task = from_arrays(X, X[:, :1], x_test=X, y_test=X[:, :1], loss=lambda o, b: (o - b["y"]).square())
    for engine in ("loop", "vmap"):
        with pytest.raises(ConfigError, match=r"task.name = 'arrays': loss gives shape \(7, 1\) for 7 samples"):
            run(model=nn.Linear(6, 1), task=task, engine=engine, out=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_runs_of_one_batch_tell_what_is_to_be_known_of_their_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A centre that no client trains: each run's log has it, and stderr once."""
    centre = nn.Parameter(torch.zeros(3))
    task = from_arrays(X, CLASSES, clients=OWNERS, loss=lambda o, b: (o - centre).square().sum(1))
    settings: dict[str, Any] = {"task": task, "model": nn.Linear(6, 3), "partition": "natural", "engine": "vmap"}
    both = make_each(rounds=1, seed=[0, 1], out=str(tmp_path), **settings)
    for summary, error in run_together(both, "seed", False):
        assert error is None
        events = load(summary["run_dir"]).events
        [note] = events.loc[events["event"] == "start", "note"]
        assert note.startswith(
            "one of 2 runs of a batch: vmap_over seed; the loss uses 1 parameter (shape (3,)) that the"
        )
    assert capsys.readouterr().err.count("note: the loss uses 1 parameter") == 1
