"""Requirements on every task, then the properties of each task."""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from clients.tasks import from_arrays, from_dataset
from clients.tasks.digits import _table
from clients.tasks.sinusoid import TEST_CLIENTS
from fl_sim import registry, rng, tree
from fl_sim.learning.measures import accuracy, cross_entropy, squared_error
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform

TASKS = registry.names("clients.tasks", "task")


def build(name: str, data: Path, **parameters: Any) -> Task:
    """The task called ``name``, on fake files if it reads files (``fake_data`` must have the layout of every task)."""
    own = registry.parameters(TASKS[name])
    given: dict[str, Any] = {"data_dir": str(data)} if "data_dir" in own else {}
    given |= {"path": str(data / "own")} if "path" in own else {}
    given |= {"length": 8} if "length" in own else {}
    task = TASKS[name](**given, **parameters)
    assert isinstance(task, Task)
    return task


def test_the_promised_tasks_are_there() -> None:
    assert {"digits", "cifar10", "mnist", "synthetic", "sinusoid", "images", "omniglot"} <= set(TASKS)
    assert {"shakespeare", "breast-cancer", "folder"} <= set(TASKS)


@pytest.mark.parametrize("name", TASKS)
class TestEveryTask:
    def test_its_samples_fit_together(self, name: str, fake_data: Path) -> None:
        task = build(name, fake_data)
        assert task.name == name and task.num_train > 0
        for split in (task.train, task.test):
            assert split.keys() == task.train.keys() >= {"x", "y"} and len({len(v) for v in split.values()}) == 1
            assert all(
                v.dtype == task.train[k].dtype and v.shape[1:] == task.train[k].shape[1:] for k, v in split.items()
            )
            assert all(torch.isfinite(v.double()).all() for v in split.values())
        if task.labels is not None:
            assert np.array_equal(task.labels, task.train["y"].numpy())
            assert all(int(s["y"].min()) >= 0 and int(s["y"].max()) < task.outputs for s in (task.train, task.test))
        if task.clients is not None:
            assert (
                np.array_equal(np.unique(task.clients), np.arange(task.clients.max() + 1))
                and len(task.clients) == task.num_train
            )

    def test_its_loss_and_metrics_give_one_number_a_sample(self, name: str, fake_data: Path) -> None:
        task = build(name, fake_data)
        samples = {k: v[:3] for k, v in task.train.items()}
        samples |= {"x": samples["x"].float()} if samples["x"].dtype == torch.uint8 else {}
        batch = task.transform(samples, None)
        assert batch["x"].shape[1:] == task.inputs
        task, many = task.bound(), task.train["y"].shape[1:].numel() if name == "shakespeare" else 1
        network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(task.inputs), many * task.outputs))
        outputs = network(batch["x"].float())
        outputs = outputs.unflatten(1, (many, -1)) if many > 1 else outputs
        for function in [task.loss, *task.metrics.values()]:
            assert function(outputs, batch).shape == (len(outputs),) and torch.isfinite(function(outputs, batch)).all()
        if task.train["x"].dtype == torch.uint8:
            assert isinstance(task.transform, Transform) and (
                task.transform.mean,
                task.transform.std,
                task.transform.augment,
            ) == (
                None,
                None,
                False,
            )
            scaled = task.train["x"].float() * task.transform.scale
            assert scaled.min() >= 0 and 0.9 < scaled.max() <= 1

    def test_it_is_the_same_each_time_and_keyed_by_its_seed(self, name: str, fake_data: Path) -> None:
        first, again = build(name, fake_data), build(name, fake_data)
        assert all(
            tree.digest(getattr(first, split)) == tree.digest(getattr(again, split)) for split in ("train", "test")
        )
        if "seed" in registry.parameters(TASKS[name]):
            other = build(name, fake_data, seed=1)
            assert tree.digest(other.train) != tree.digest(first.train) and tree.digest(other.test) != tree.digest(
                first.test
            )

    def test_it_can_be_called_without_arguments_and_says_what_it_is(self, name: str, fake_data: Path) -> None:
        function = TASKS[name]
        assert all(p.default is not inspect.Parameter.empty for p in inspect.signature(function).parameters.values())
        assert function.__doc__ and "x (" in function.__doc__.replace("x, y (", "x (")


def test_digits_are_scikit_learns_split_once(fake_data: Path) -> None:
    from sklearn.datasets import load_digits

    task = build("digits", fake_data)
    assert (task.num_train, len(task.test["y"]), task.inputs, task.outputs) == (
        1438,
        359,
        (1, 8, 8),
        10,
    )  # 1797 // 5 = 359
    x = torch.cat([task.train["x"], task.test["x"]]).reshape(-1, 64).numpy()
    y = torch.cat([task.train["y"], task.test["y"]]).numpy()
    pixels, label = load_digits(return_X_y=True)  # type: ignore[no-untyped-call, unused-ignore]
    ours, theirs = np.column_stack([x, y]), np.column_stack([pixels, label])
    assert sorted(ours.tolist()) == sorted(theirs.astype(int).tolist())
    # hypergeometric counts of a class (about 180 of 1797): 36 in the test part, standard deviation about 5
    assert all(36 - 20 < n < 36 + 20 for n in np.bincount(task.test["y"].numpy()))


def test_digits_are_the_same_where_scikit_learn_keeps_its_file_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, label = _table()
    monkeypatch.setattr("clients.tasks.digits.find_spec", lambda name: None)
    again = _table()
    assert pixels.dtype == again[0].dtype and np.array_equal(pixels, again[0]) and np.array_equal(label, again[1])


def test_mnist_knows_its_writers(fake_data: Path) -> None:
    task = build("mnist", fake_data)
    assert task.clients is not None and task.clients.tolist() == [0, 1, 2] * 4 and task.inputs == (1, 28, 28)


def test_images_are_resized_and_classes_named_in_order(fake_data: Path) -> None:
    task = build("images", fake_data, size=16)
    assert task.inputs == (3, 16, 16) and task.outputs == 2 and task.train["y"].tolist() == [0, 1]


class TestSynthetic:
    def test_sizes_are_those_of_the_authors_script(self, fake_data: Path) -> None:
        task = build("synthetic", fake_data)
        # np.random.seed(0); np.random.lognormal(4, 2, 30).astype(int) + 50 begins with 1909, 171, 436, 4876, 2337; its
        # sum is 22349.
        assert task.clients is not None and np.bincount(task.clients)[:5].tolist() == [
            int(0.9 * n) for n in (1909, 171, 436, 4876, 2337)
        ]
        assert task.num_train + len(task.test["y"]) == 22349 and task.inputs == (60,) and task.outputs == 10

    def test_it_is_what_the_authors_steps_give(self, fake_data: Path) -> None:
        """Appendix C.1 step by step, in the script's order of draws, with NumPy's multivariate normal distribution."""
        task = build("synthetic", fake_data, clients=4, alpha=0.5, beta=2.0, seed=3)
        draw = rng.legacy(3)
        sizes = draw.lognormal(4, 2, 4).astype(int) + 50
        u, b = draw.normal(0, 0.5, 4), draw.normal(0, 2.0, 4)
        v = [draw.normal(b[k], 1, 60) for k in range(4)]
        assert task.clients is not None and task.labels is not None
        for k in range(4):
            weight, bias = draw.normal(u[k], 1, (60, 10)), draw.normal(u[k], 1, 10)
            x = draw.multivariate_normal(v[k], np.diag(np.arange(1, 61) ** -1.2), sizes[k])
            y = np.argmax(x @ weight + bias, axis=1)
            ours = np.column_stack([task.train["x"].numpy(), task.labels])[task.clients == k]
            theirs = {tuple(row) for row in np.column_stack([x.astype(np.float32), y]).round(4).tolist()}
            assert (
                len(ours) == int(0.9 * sizes[k])
                and {tuple(row) for row in ours.astype(np.float64).round(4).tolist()} <= theirs
            )

    def test_inputs_have_the_stated_spread(self, fake_data: Path) -> None:
        task = build("synthetic", fake_data)
        assert task.clients is not None
        for c in (3, 4):  # 4388 and 2103 training samples
            x = task.train["x"][torch.from_numpy(task.clients == c)].double()
            expected = torch.arange(1, 61, dtype=torch.float64) ** -1.2
            # a variance from n normals: relative standard deviation sqrt(2 / n) <= .031; 5 of these
            assert ((x.var(0) / expected - 1).abs() < 5 * math.sqrt(2 / len(x))).all()

    def test_labels_are_linear_in_a_clients_inputs(self, fake_data: Path) -> None:
        """y = argmax(x W + b) without noise: a linear model separates the classes of one client, but not of several."""
        from sklearn.linear_model import LogisticRegression

        task = build("synthetic", fake_data, clients=6)
        assert task.clients is not None and task.labels is not None
        x, own = task.train["x"].numpy(), task.clients == 0
        fitted = LogisticRegression(C=1e4, max_iter=500).fit(x[own], task.labels[own])
        assert fitted.score(x[own], task.labels[own]) > 0.97
        assert fitted.score(x[~own], task.labels[~own]) < 0.5

    def test_alpha_changes_no_label(self, fake_data: Path) -> None:
        """x (W + u 1) + (b + u) = x W + b + u (sum x + 1): the same for all classes, so the argmax stays."""
        same, far = (build("synthetic", fake_data, alpha=alpha) for alpha in (0.0, 5.0))
        assert tree.digest(same.train) == tree.digest(far.train) and tree.digest(same.test) == tree.digest(far.test)

    def test_beta_sets_how_much_inputs_differ(self, fake_data: Path) -> None:
        alike, apart = (build("synthetic", fake_data, clients=40, beta=beta) for beta in (0.0, 3.0))

        def spread(task: Task) -> float:
            assert task.clients is not None
            means = [task.train["x"][torch.from_numpy(task.clients == c)].mean().item() for c in range(40)]
            return float(np.std(means))

        # The mean over 60 v_kj ~ N(B_k, 1) has the standard deviation sqrt(beta^2 + 1/60), that is .129 and 3.003; the
        # relative error of the estimates is 1 / sqrt(2 * 39) = 11 %.
        assert spread(alike) == pytest.approx(0.129, rel=0.5) and spread(apart) == pytest.approx(3.003, rel=0.5)

    @pytest.mark.parametrize(
        "key, value", [("clients", 0), ("alpha", -1.0), ("beta", float("inf")), ("alpha", float("nan")), ("seed", -1)]
    )
    def test_bad_numbers_are_refused(self, key: str, value: float, fake_data: Path) -> None:
        with pytest.raises(ValueError, match=rf"task\.{key} = {value}"):
            build("synthetic", fake_data, **{key: value})


class TestSinusoid:
    def test_each_client_has_one_wave(self, fake_data: Path) -> None:
        task = build("sinusoid", fake_data, clients=200)
        x, y = (task.train[k].reshape(200, 50).double() for k in ("x", "y"))
        assert torch.allclose(x[0], torch.linspace(-5, 5, 50, dtype=torch.float64)) and task.clients is not None
        # y = a sin x cos p + a cos x sin p: least squares on (sin x, cos x) recovers a and p exactly
        design = torch.stack([x[0].sin(), x[0].cos()], 1)
        found = torch.linalg.lstsq(design, y.T)
        assert torch.allclose(design @ found.solution, y.T, atol=1e-5)
        amplitude = found.solution.norm(dim=0)
        # U(.1, 5): mean 2.55, standard deviation 1.41; of 200: 5 * 1.41 / sqrt(200) = .5
        assert amplitude.min() >= 0.1 and amplitude.max() <= 5 and abs(amplitude.mean() - 2.55) < 0.5
        phase = torch.atan2(found.solution[1], found.solution[0])
        assert abs(phase.cos().mean()) < 0.25 and abs(phase.sin().mean()) < 0.25  # 5 * sqrt(1/2) / sqrt(200) = .25

    def test_it_is_a_regression_with_other_waves_as_its_test(self, fake_data: Path) -> None:
        task = build("sinusoid", fake_data, clients=3, samples=7)
        assert task.loss is squared_error and task.labels is None and task.outputs == 1 and task.inputs == (1,)
        assert (
            task.clients is not None
            and task.clients.tolist() == [0] * 7 + [1] * 7 + [2] * 7
            and len(task.test["y"]) == 7 * TEST_CLIENTS
        )

    def test_a_wave_does_not_depend_on_how_many_there_are(self, fake_data: Path) -> None:
        few, many = (build("sinusoid", fake_data, clients=n) for n in (3, 30))
        assert torch.equal(few.train["y"], many.train["y"][: 3 * 50]) and torch.equal(few.test["y"], many.test["y"])

    @pytest.mark.parametrize("key", ["clients", "samples"])
    def test_bad_numbers_are_refused(self, key: str, fake_data: Path) -> None:
        with pytest.raises(ValueError, match=rf"task\.{key} = 0"):
            build("sinusoid", fake_data, **{key: 0})


class Pictures(Dataset[Any]):
    """A user's Dataset of PIL pictures: map-style, without an iterator."""

    def __init__(self, mode: str, sizes: list[int]) -> None:
        from PIL import Image

        self.items = [(Image.new(mode, (size, 4), color=i), i % 2) for i, size in enumerate(sizes)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class TestFromDataset:
    def test_pictures(self) -> None:
        task = from_dataset(Pictures("RGB", [6] * 8), Pictures("RGB", [6] * 2))
        assert task.inputs == (3, 4, 6) and task.train["x"].dtype == torch.uint8 and task.loss is cross_entropy
        assert task.train["x"][:, 0, 0, 0].tolist() == list(range(8)) and task.train["y"].tolist() == [0, 1] * 4
        assert (task.name, len(task.test["y"]), task.outputs, set(task.metrics)) == ("pictures", 2, 2, {"accuracy"})
        assert from_dataset(Pictures("L", [6] * 8)).inputs == (1, 4, 6) and from_dataset(
            Pictures("P", [6] * 8)
        ).inputs == (3, 4, 6)

    def test_tensors_and_options(self) -> None:
        x = torch.rand(10, 3)
        task = from_dataset(
            TensorDataset(x, x.sum(1)), clients=list(range(10)), metrics={"m": accuracy}, name="sums", test_share=0.2
        )
        assert (task.name, task.loss, set(task.metrics), task.num_train) == ("sums", squared_error, {"m"}, 8)
        assert task.clients is not None and task.num_clients == 10 and len(set(task.clients.tolist())) == 8
        torch.testing.assert_close(task.train["x"].sum(1), task.train["y"])

    def test_it_equals_the_arrays(self) -> None:
        x, y = torch.rand(10, 3), torch.arange(10) % 4
        a, b = from_dataset(TensorDataset(x, y)), from_arrays(x, y)
        assert tree.digest(a.train) == tree.digest(b.train) and tree.digest(a.test) == tree.digest(b.test)

    def test_bad_datasets_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match=r"sample 1 of train: x has the shape \(3, 4, 5\), sample 0 has \(3, 4, 6\)"
        ):
            from_dataset(Pictures("RGB", [6, 5]))
        with pytest.raises(ValueError, match="test has no samples"):
            from_dataset(Pictures("RGB", [6]), Pictures("RGB", []))
