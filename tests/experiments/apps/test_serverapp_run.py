"""Apps of a few lines, in the styles of Flower's users: each does what it does on Flower, and its digest repeats."""

import ast
import builtins
import time
from pathlib import Path

import pytest

from experiments.config.command_line import parse
from experiments.run import main
from fl_sim.grids import plain_app
from fl_sim.logs.toml import read_toml
from tests.experiments.apps.small_apps import CLIENT, COMPONENTS, LEGACY, SEND, WORKFLOW, Try, events, exchanging


def test_nodes_are_a_list_and_messages_that_nobody_answers_are_told(attempt: Try) -> None:
    body = "nodes = grid.get_node_ids()\nnodes.reverse()\n"
    body += "lost = list(grid.send_and_receive([Message(RecordDict(), 123456, 'train')]))\n"
    body += "none = list(grid.send_and_receive([Message(RecordDict(), nodes[0], 'query.nothing')]))\n"
    body += "said(nodes, len(lost), [(r.has_error(), r.error.code) for r in none])"
    code, summary, log, heard = attempt(exchanging(body))
    assert (code, heard) == (0, "([4, 3, 2], 0, [(True, 2)])")
    assert events(log) == ["no_such_node", "no_function"] and not summary["bits_changed"]


def test_a_timeout_counts_the_wall_time_of_each_call(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves in the slow call only, so that no load of the machine changes the test."""
    assert plain_app.clock is time.monotonic
    monkeypatch.setattr(plain_app, "clock", lambda: passed[0])
    monkeypatch.setattr(builtins, "passed", passed := [0.0], raising=False)
    slow = CLIENT.replace("    new = ", "    passed[0] += 0.3 if n == 1 else 0\n    new = ", 1)
    body = "replies = list(grid.send_and_receive(messages(grid), timeout=0.2))\n"
    body += "said([r.metadata.src_node_id for r in replies])"
    code, summary, log, heard = attempt(exchanging(body), slow)
    assert (code, heard, events(log), summary["bits_changed"]) == (0, "([2, 4],)", ["timeout"], True)
    assert log.clients["status"].tolist() == ["completed", "dropped", "completed"]


def test_an_app_sees_the_failures_that_are_tolerated(attempt: Try) -> None:
    bad = CLIENT.replace("    new = ", "    assert n != 1\n    new = ", 1)
    body = SEND + "said([r.has_error() for r in replies])"
    assert attempt(exchanging(body), bad)[0] == 1
    code, summary, _, heard = attempt(exchanging(body), bad, "--clients", "3", "--failures", "tolerate:0.4")
    assert (code, summary["clients_failed"], heard) == (0, 1, "([False, True, False],)")


def test_threads_lose_no_reply_and_an_event_says_that_their_order_may_differ(attempt: Try) -> None:
    body = "out = []\nwork = lambda: out.extend(grid.send_and_receive(messages(grid)))\n"
    body += "threads = [threading.Thread(target=work) for _ in range(3)]\n"
    body += "[t.start() for t in threads]\n[t.join() for t in threads]\nsaid(len(out))"
    code, first, log, heard = attempt(exchanging(body))
    assert (code, heard, first["rounds"], events(log)) == (0, "(9,)", 3, ["not_repeatable"])
    assert attempt(exchanging(body))[1]["digest"] == first["digest"]


def test_ids_in_a_set_are_answered_in_the_order_of_their_messages(attempt: Try) -> None:
    body = "ids = grid.push_messages(messages(grid))\n"
    body += "got = [r.metadata.src_node_id for r in grid.pull_messages([*ids[::-1], 'other'])]\n"
    body += "said(got, list(grid.pull_messages(ids)))"
    assert attempt(exchanging(body))[3] == "([2, 3, 4], [])"


def test_numbers_that_do_not_enter_the_model_fail_no_run(attempt: Try) -> None:
    bad = CLIENT.replace('"num-examples": n + 1', '"num-examples": n, "auc": float("nan")')
    start = "r = averaging().start(grid, ArrayRecord([np.zeros(2)]), 1, evaluate_fn=lambda k, a: MetricRecord("
    start += "{'loss': float('nan')}))\nsaid(float(r.arrays.to_numpy_ndarrays()[0][0]), len(str(r)) < 300)"
    code, summary, log, heard = attempt(exchanging(start), bad)
    assert (code, summary["loss"]) == (0, None)
    assert heard == f"({(2 * 1 + 3 * 2) / 3!r}, True)"  # the client whose weight is 0 counts nothing
    assert {"zero_weight", "not_finite"} <= set(events(log))
    own = SEND + "said([r.content['metrics']['num-examples'] for r in replies])"
    assert attempt(exchanging(own), bad)[3] == "([0, 1, 2],)"  # an app that averages itself gets all


def test_a_strategy_gets_nan_of_an_evaluation_and_the_rest_of_that_reply(attempt: Try) -> None:
    bad = CLIENT.replace('"loss": 1.0', '"loss": 1.0 + n, "auc": float("nan") if n == 1 else 0.5')
    start = "r = FedAvg().start(grid, ArrayRecord([np.zeros(2)]), 1)\nm = r.evaluate_metrics_clientapp[1]\n"
    start += "said(round(m['loss'], 9), str(m['auc']))"
    code, summary, log, heard = attempt(exchanging(start), bad)
    assert (code, heard) == (0, "(2.0, 'nan')")  # as with Flower: the loss of all three
    row = log.rounds.iloc[-1]
    assert (round(row["evaluate_loss"], 9), row["completed"]) == (2.0, 3) and row["evaluate_auc"] != row["evaluate_auc"]
    assert "not_finite" in events(log) and summary["not_finite"] == "auc, evaluate_auc"


def test_a_strategy_may_return_no_model_keep_text_in_it_and_be_wrapped(attempt: Try) -> None:
    server = """
class Own(FedAvg):
    ready = False
    def summary(self):
        self.ready = True
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        return (replies[0].content["arrays"] if server_round == 2 else None), None
class Spy(Grid):
    def __init__(self, grid): self.g = grid
    def __getattr__(self, name): return getattr(self.g, name)
    def set_run(self, run): self.g.set_run(run)
    run = property(lambda self: self.g.run)
    def create_message(self, *a, **k): return self.g.create_message(*a, **k)
    def get_node_ids(self): return self.g.get_node_ids()
    def push_messages(self, m): return self.g.push_messages(m)
    def pull_messages(self, i): return self.g.pull_messages(i)
    def send_and_receive(self, m, *, timeout=None): return self.g.send_and_receive(m, timeout=timeout)
"""
    body = "first = ArrayRecord({'words': Array(np.array(['a', 'bc'])), 'w': Array(np.zeros(2))})\n"
    body += "s = Own(fraction_evaluate=0.0)\nr = s.start(Spy(grid), first, 2)\n"
    body += "said(s.ready, list(r.arrays['words'].numpy()))"
    echo = CLIENT.replace(
        'ArrayRecord([x + n + 1 for x in message.content["arrays"].to_numpy_ndarrays()])', "message.content['arrays']"
    )
    code, first, log, heard = attempt(server + exchanging(body), echo)
    assert (code, heard, log.rounds["round"].tolist()) == (0, "(True, [np.str_('a'), np.str_('bc')])", [0, 1, 2])
    assert "no_new_model" in events(log) and sorted(log.clients["client"]) == [0, 0, 1, 1, 2, 2]
    assert attempt(server + exchanging(body), echo)[1]["digest"] == first["digest"] is not None


@pytest.mark.parametrize("server", [COMPONENTS, WORKFLOW])
def test_apps_of_the_api_before_messages_run_exchange_by_exchange(server: str, attempt: Try) -> None:
    client = LEGACY.replace("BAD", "-1")
    code, first, log, _ = attempt(server, client, head="")
    kinds = log.rounds["exchange"].tolist()
    assert code == 0 and kinds[-4:] == ["train", "evaluate"] * 2 and first["rounds"] == len(kinds) - 1
    assert attempt(server, client, head="")[1]["digest"] == first["digest"]
    if server is WORKFLOW:  # p <- the mean of p / 2 + n with weights n + 1, which is p / 2 + 4 / 3
        assert log.model()["0"].tolist() == pytest.approx([0.25 + 4 / 3 * 1.5] * 2, abs=1e-12)
        assert log.clients["examples"].iloc[:3].sum() == 6
    code, failed, _, _ = attempt(server, LEGACY.replace("BAD", "1"), head="")
    assert (code, failed["status"]) == (1, "failed") and "AssertionError" in failed["error"]


def test_too_few_nodes_for_an_app_of_the_api_before_messages(attempt: Try) -> None:
    code, summary, _, _ = attempt(COMPONENTS, LEGACY, "--clients", "1", head="")
    assert code == 1 and "waiting for 2 nodes, and there are 1" in summary["error"]


def test_where_a_digest_cannot_repeat_an_event_names_the_place(attempt: Try) -> None:
    start = "r = averaging().start(grid, ArrayRecord([np.random.default_rng(DRAW).normal(size=2)]), 1)"
    code, _, log, _ = attempt(exchanging(start.replace("DRAW", "")))
    [reason] = log.events["reason"].dropna()
    assert code == 0 and "operating system's randomness" in reason and "small0_s.py:" in reason
    assert events(attempt(exchanging(start.replace("DRAW", "1")))[2]) == []
    [reason] = attempt(exchanging("time.time()"))[2].events["reason"].dropna()
    assert "reads the clock (small2_s.py:" in reason


@pytest.mark.parametrize(
    "line, told",
    [
        ("import random; random.Random()", "randomness"),
        ("import random; random.Random(3); random.seed(4)", ""),
        ("import random; random.seed()", "randomness"),
        ("from datetime import datetime; datetime.now()", "clock"),
        ("import datetime as dt; dt.date.today()", "clock"),
        ("from time import time_ns as now; now()", "clock"),
        ("import tempfile; tempfile.mkdtemp()", ""),
    ],
)
def test_generators_without_a_seed_and_clocks_are_told(line: str, told: str, attempt: Try) -> None:
    reasons = attempt(exchanging(line))[2].events["reason"].dropna().tolist()
    assert len(reasons) == bool(told) and all(told in reason and "small0_s.py:" in reason for reason in reasons)


def test_run_config_overrides_the_apps_own_and_is_stored(attempt: Try) -> None:
    body = "said(context.run_config)"
    code, summary, _, heard = attempt(exchanging(body), CLIENT, "--run-config", "lr=0.2 num-server-rounds=5")
    assert (code, heard) == (0, "({'lr': 0.2, 'num-server-rounds': 5},)")
    stored = Path(summary["run_dir"]) / "config.toml"
    assert "lr = 0.2" in stored.read_text()
    again = parse([str(stored)])  # the user's own key signed it
    assert (again.app, again.app_config["lr"]) == (read_toml(stored)["app"], 0.2)


def test_a_mod_may_refuse_to_evaluate(attempt: Try) -> None:
    """Flower's mods for differential privacy do, since messages to evaluate hold no clipping norm."""
    client = CLIENT.replace(
        "app = ClientApp()", "from flwr.clientapp.mod import fixedclipping_mod as mod\napp = ClientApp(mods=[mod])"
    )
    start = "from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping as Private\n"
    start += "inner = FedAvg(min_available_nodes=2)\n"
    start += "r = Private(inner, 0.0, 2.0, 2).start(grid, ArrayRecord([np.zeros(2)]), 1)\n"
    start += "said(len(r.evaluate_metrics_clientapp), float(np.abs(r.arrays.to_numpy_ndarrays()[0]).sum()) > 0)"
    code, _, log, heard = attempt(exchanging(start), client)
    assert (code, heard) == (0, "(0, True)") and events(log).count("mod_refused") == 3
    assert attempt(exchanging(SEND), client)[0] == 1  # in training it is a failure


def test_the_number_of_nodes_is_flowers_default_and_an_engine_is_refused(
    attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(exchanging("said(grid.get_node_ids())"), CLIENT, "--seed", "1")[3] == "([2, 3],)"
    assert main(["--app", str(tmp_path / "small0"), "--engine", "loop"]) == 2
    assert "engine: means nothing to a Flower app: its ClientApp is called once" in capsys.readouterr().err


def test_a_run_folder_keeps_its_number_of_nodes_and_an_apps_keys_are_its_own(
    attempt: Try, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project says another number by then, and its config has keys that are named like flags of this project."""
    server = exchanging("said(len(grid.get_node_ids()), dict(context.run_config))")
    run_dir = Path(attempt(server, CLIENT, "--clients", "3")[1]["run_dir"])
    project = tmp_path / "small0" / "pyproject.toml"
    keys = 'clients = 9\nseed = 4\nnames = "Basel"\n'
    federation = (
        '[tool.flwr.federations]\ndefault = "local"\n[tool.flwr.federations.local]\noptions.num-supernodes = 5\n'
    )
    project.write_text(project.read_text() + keys + federation)
    heard = []
    for words in ([str(run_dir / "config.toml")], ["--app", str(tmp_path / "small0")]):
        assert main([*words, "--quiet", "--out", "again"]) == 0
        heard.append(ast.literal_eval((tmp_path / "said.txt").read_text()))
    config = {"lr": 0.1, "num-server-rounds": 2, "clients": 9, "seed": 4, "names": "Basel"}
    assert heard == [(3, config), (5, config)]
    assert main(["--resume", str(run_dir)]) == 2 and "which cannot go on" in capsys.readouterr().err


def test_records_named_like_our_own_and_mixed_dtypes_reach_a_strategy_that_aggregates_itself(attempt: Try) -> None:
    server = """
class Own(FedAvg):
    def aggregate_train(self, server_round, replies):
        arrays = [r.content["pool"].to_numpy_ndarrays()[0] for r in replies]
        said(sorted(a.dtype.name for a in arrays), r_facts(replies))
        return ArrayRecord([np.mean([a.astype(float) for a in arrays], axis=0)]), None
def r_facts(replies):
    return sorted(r.content["facts"]["weight"] for r in replies)
"""
    client = CLIENT.replace("x + n + 1 for x", "(x + n + 1).astype(['f2', 'f8', 'i4'][n]) for x").replace(
        '{"arrays": new', '{"facts": ConfigRecord({"weight": "heavy", "num-bytes": str(n)}), "pool": new'
    )
    code, _, log, heard = attempt(
        server + exchanging("Own(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(2, np.float32)]), 1)"), client
    )
    assert (code, heard) == (0, "(['float16', 'float64', 'int32'], ['heavy', 'heavy', 'heavy'])")
    assert log.model()["0"].tolist() == [2.0, 2.0]
