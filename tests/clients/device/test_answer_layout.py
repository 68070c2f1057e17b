"""Layout and ignored label of a task reach devices, which refuse a wrong loss too; and the command line names them."""

from pathlib import Path

import pytest
import torch
from flwr.app import Message, RecordDict

from clients.app import app
from clients.device.samples import own_samples
from clients.learner import answer
from experiments.check.same_digests import last_of_each
from experiments.deploy.server_app import device_settings, parse_configs
from experiments.run import main
from experiments.runs.setup import build
from fl_sim.grids.messages import settings_of
from fl_sim.grids.nodes import EXPERIMENT
from fl_sim.wire import flower, records
from strategies.base.strategy import Strategy

HERE = "tests.clients.device.tagging"
WORDS = ["--task", f"{HERE}:tags", "--model", f"{HERE}:net", "--clients", "4", "--dtype", "float64"]
LAYOUT = ["--task.class_axis", "1", "--task.ignore_index", "2"]


def test_a_device_trains_with_the_tasks_layout_and_refuses_a_wrong_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    [config] = parse_configs([*WORDS, *LAYOUT])
    setup, spec = build(config), device_settings(build(config))
    task, _ = own_samples(spec, 1, "")
    assert (task.class_axis, task.ignore_index) == (setup.task.class_axis, setup.task.ignore_index) == (1, 2)
    assert isinstance(setup.strategy, Strategy)
    settings = setup.strategy.round_settings(1, setup.train_config)
    replies = []
    for name in ("tags", "columns"):
        content = {
            "arrays": setup.initial,
            "config": records.config(settings),
            EXPERIMENT: records.config({**spec, "task": f"{HERE}:{name}"}),
        }
        flower.identify()
        message = Message(RecordDict(content), 5, "train")
        flower.set_message_id(message, "m1")
        replies.append(app(message, flower.context(5, {"partition-id": 1}, RecordDict(), {})))
        if name == "tags":
            expected = answer(setup.learner, message, 1, settings_of(message, config.seed, skip=EXPERIMENT), {})
    good, wrong = replies
    assert good.has_content(), good.error.reason
    assert expected.reply is not None and not expected.reason
    for name, value in records.decode(good.content.array_records["arrays"]).items():
        assert torch.equal(value, expected.reply[name])
    assert "loss gives shape (7, 6) for 7 samples" in wrong.error.reason


@pytest.mark.parametrize(
    "words, code, problem",
    [
        ([], 2, "task.class_axis = 'auto': outputs have shape (7, 6, 6), y has (7, 6)"),
        (["--task.class_axis", "2"], 2, "task.class_axis = '2': must be 'auto', 1 or -1"),
        (["--task.class_axis", "-1", "--task.ignore_index", "x"], 2, "task.ignore_index = 'x'"),
        (["--task.class_axis", "-1"], 0, ""),
        (["--task", f"{HERE}:columns"], 2, "loss gives shape (7, 6) for 7 samples; it must give (7,)"),
    ],
)
def test_the_command_line_names_the_layout(
    words: list[str], code: int, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(last_of_each([*WORDS, *words, "--rounds", "1", "--dry-run", "--out", str(tmp_path)])) == code
    assert problem in capsys.readouterr().err
