"""Each client gets the state that it returned last, on every engine: in cohorts in which only some have one."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.check import CHECKS, Target, targets_of
from experiments.check.comparisons import assert_close
from experiments.check.world import SIZES, app_of, trained, world
from experiments.run import main
from fl_sim import SimulationGrid, load, tree
from fl_sim.engines import vmap
from fl_sim.rounds.checkpoint import latest
from fl_sim.states import client_states
from fl_sim.states.client_states import ClientStates
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.strategy import Strategy
from tests.conformance import stateful

TARGETS = [
    target for cls in (stateful.Visits, stateful.Started) for target in targets_of("strategy", cls.__name__, cls)
]
COMMON = (
    "--clients 12 --cohort 6 --model lr --local.batch_size 16 --dtype float64 --quiet --json"
    " --partition dirichlet --partition.alpha 0.5 --system.stragglers 0.4 --checkpoint_every 1"
)
ENGINES = [
    "--engine loop",
    "--engine vmap",
    "--engine vmap --chunk 2",
    "--vmap_over strategy.beta=.1,.3",
    "--vmap_over strategy.beta=.1,.3 --chunk 5",
    *(
        pytest.param(
            f"--engine ray --ray.num_workers {n} --ray.engine {engine}", marks=[pytest.mark.slow, pytest.mark.ray]
        )
        for n, engine in ((1, "vmap"), (2, "vmap"), (4, "loop"))
    ),
]


def words(strategy: str = "Visits", rounds: int = 6, block: int = 3) -> str:
    """The words of a command."""
    return f"{COMMON} --strategy tests.conformance.stateful:{strategy} --rounds {rounds} --block_size {block}"


def summary_of(command: str, capsys: Any) -> dict[str, Any]:
    """The summary of a run, of the first one if it is a batch."""
    assert main(command.split()) == 0
    summary = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return dict(summary.get("runs", [summary])[0])


def states_of(run_dir: str) -> dict[int, Tree]:
    """The states of the last checkpoint."""
    checkpoint, _ = latest(Path(run_dir))
    assert checkpoint is not None
    return dict(checkpoint.states)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on the loop, in blocks of one client."""
    out = tmp_path_factory.mktemp("reference")
    assert main(f"{words(block=1)} --engine loop --checkpoint_keep 0 --out {out}".split()) == 0
    [run] = out.iterdir()
    return run


def assert_same(run_dir: str, reference: Path) -> None:
    log, plain = load(run_dir), load(reference)
    seen: Counter[int] = Counter()
    trained = log.clients[log.clients["status"] == "completed"]
    for row in trained.to_dict("records"):
        seen[row["client"]] += 1
        assert row["visits"] == seen[row["client"]], f"round {row['round']}, client {row['client']}"
    assert max(seen.values()) > 2 and len(seen) > 8
    assert float(tree.norm(tree.sub(log.model(), plain.model()))) < 1e-9
    states, expected = states_of(run_dir), states_of(str(reference))
    assert set(states) == set(expected) == set(seen)
    for client, state in expected.items():
        assert {k: (x.shape, x.dtype) for k, x in states[client].items()} == {
            k: (x.shape, x.dtype) for k, x in state.items()
        }
        assert all(float((states[client][k].double() - x.double()).abs().max()) < 1e-6 for k, x in state.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_states_that_appear_late_grow_and_change_their_dtype(
    engine: str, reference: Path, tmp_path: Path, capsys: Any
) -> None:
    summary = summary_of(f"{words()} {engine} --out {tmp_path}", capsys)
    assert_same(summary["run_dir"], reference)
    events = load(summary["run_dir"]).events
    assert "fallback" not in set(events.get("event", ())), events


def test_a_run_that_goes_on_keeps_them(reference: Path, tmp_path: Path, capsys: Any) -> None:
    summary = summary_of(f"{words(rounds=3)} --engine vmap --out {tmp_path}", capsys)
    summary = summary_of(f"--resume {summary['run_dir']} --rounds 6 --quiet --json", capsys)
    assert_same(summary["run_dir"], reference)


@pytest.mark.parametrize("how", ["--fork", "--resume"])
def test_a_run_that_begins_at_a_checkpoint_of_another_has_its_bits(
    how: str, reference: Path, tmp_path: Path, capsys: Any
) -> None:
    """A checkpoint of round 2, when some clients have no state yet."""
    if how == "--fork":
        summary = summary_of(f"--fork {reference}@2 {words(block=1)} --engine loop --out {tmp_path}", capsys)
    else:
        summary = summary_of(f"{words(rounds=2, block=1)} --engine loop --out {tmp_path}", capsys)
        assert 0 < len(states_of(summary["run_dir"])) < 12
        summary = summary_of(f"--resume {summary['run_dir']} --rounds 6 --quiet --json", capsys)
    log, whole = load(summary["run_dir"]), load(reference)
    rows, expected = (x.rounds.set_index("round")["digest"] for x in (log, whole))
    assert list(rows.loc[3:]) == list(expected.loc[3:]) and len(rows.loc[3:]) == 4
    own, other = (x.clients[x.clients["round"] > 2]["visits"].dropna() for x in (log, whole))
    assert list(own) == list(other) and own.max() > 2
    states, before = states_of(summary["run_dir"]), states_of(str(reference))
    assert {c: tree.digest(state) for c, state in states.items()} == {c: tree.digest(s) for c, s in before.items()}


@pytest.mark.parametrize("how", [stateful.lost, stateful.swapped])
@pytest.mark.parametrize(
    "engine",
    [
        "--engine loop",
        "--engine vmap",
        pytest.param("--engine ray --ray.num_workers 1", marks=[pytest.mark.slow, pytest.mark.ray]),
    ],
)
def test_a_stored_state_that_is_lost_or_swapped_is_seen(
    engine: str, how: Any, reference: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutation of what a block gets of the states in segments, which are right where it gets them as they are."""
    part = ClientStates.part
    monkeypatch.setattr(client_states, "MEMORY_BYTES", 0)
    if how is stateful.lost:
        assert_same(summary_of(f"{words()} {engine} --out {tmp_path}", capsys)["run_dir"], reference)
    monkeypatch.setattr(ClientStates, "part", lambda self, clients: how(dict(part(self, clients))))
    summary = summary_of(f"{words()} {engine} --out {tmp_path}", capsys)
    with pytest.raises(AssertionError):
        assert_same(summary["run_dir"], reference)


def test_states_of_every_dtype_layout_and_order_are_right_on_every_engine(tmp_path: Path, capsys: Any) -> None:
    common = words("Odd", rounds=4)
    loop = summary_of(f"{common} --engine loop --out {tmp_path / 'loop'}", capsys)
    expected, model = states_of(loop["run_dir"]), load(loop["run_dir"]).model()
    half = summary_of(f"{words('Odd', rounds=2)} --engine loop --out {tmp_path / 'half'}", capsys)
    again = summary_of(f"--resume {half['run_dir']} --rounds 4 --quiet --json", capsys)
    assert again["digest"] == loop["digest"]
    batched = summary_of(f"{common} --engine vmap --chunk 2 --out {tmp_path / 'vmap'}", capsys)
    assert "fallback" not in set(load(batched["run_dir"]).events.get("event", ()))
    for summary in (loop, again, batched):
        clients = load(summary["run_dir"]).clients
        trained = clients[clients["status"] == "completed"]
        assert list(trained["n"]) == list(trained.groupby("client").cumcount() + 1) and trained["n"].max() > 2
        states = states_of(summary["run_dir"])
        assert {c: list(state) for c, state in states.items()} == {c: list(state) for c, state in expected.items()}
        for client, state in expected.items():
            assert_close(state, states[client], f"client {client}")
        assert_close(model, load(summary["run_dir"]).model(), "the model")


def test_a_tensor_that_a_rule_writes_into_for_each_client_is_kept_as_it_was() -> None:
    run = trained(stateful.Scratch(), block_size=1)
    assert len({float(state["s"][0]) for state in run.states.values()}) == len(run.states) > 3


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_rule_gives_the_state_to_start_from(engine: str) -> None:
    started, plain = trained(stateful.Started(), engine), trained(stateful.Remembers())
    assert not started.notes and set(started.states) == set(plain.states)
    assert float(tree.norm(tree.sub(started.model, plain.model))) < 1e-9


def states_after(strategy: Strategy, engine: str, rounds: int) -> tuple[dict[int, Tree], list[str]]:
    """The states of all clients after some rounds on one model, and the reasons of failures in the last round."""
    grid, config = SimulationGrid(app_of(strategy), len(SIZES), engine=engine, block_size=4), {"local.epochs": 1}
    arrays = records.encode(world()[0].initial())
    for server_round in range(1, rounds + 1):
        sent = strategy.configure_train(server_round, arrays, records.config({**config, "local.lr": 0.05}), grid)
        replies = list(grid.send_and_receive(sent))
    return dict(grid.states), [reply.error.reason for reply in replies if reply.has_error()]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("how, reason", [("reply", "NaN or"), ("metric", "loss is nan"), ("state", "NaN in best of")])
def test_a_client_that_fails_keeps_its_last_good_state(engine: str, how: Any, reason: str) -> None:
    states, reasons = states_after(stateful.Stumbles(how), engine, 3)
    assert [float(state["visits"]) for state in states.values()] == [1.0] * len(SIZES)
    assert len(reasons) == len(SIZES) and all(reason in found for found in reasons), reasons


def test_a_block_that_runs_again_after_memory_ran_out_gives_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = states_after(stateful.Visits(), "vmap", 2)
    original = vmap.train_clients

    def too_large(jobs: Any, *more: Any) -> Any:
        result = original(jobs, *more)  # all work is lost
        if len(jobs) > 2:
            raise torch.OutOfMemoryError
        return result

    monkeypatch.setattr(vmap, "train_clients", too_large)
    again, reasons = states_after(stateful.Visits(), "vmap", 2)
    assert not reasons and set(again) == set(plain)
    for client, state in plain.items():
        assert_close(state, again[client], f"client {client}")


def test_a_state_keeps_no_other_clients_state_in_memory() -> None:
    states, _ = states_after(stateful.Remembers(), "vmap", 1)
    assert all(x.untyped_storage().nbytes() == x.nbytes for state in states.values() for x in state.values())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_contract(target: Target, check: Any) -> None:
    check(target.make)
