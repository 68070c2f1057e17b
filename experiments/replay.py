"""``python -m experiments.replay RUN --round 37 --client 812 [--pdb] [--json]``: one client's round again, on the loop.

Blocks are pure, so the past can be recomputed: RUN/config.toml is rebuilt, rounds 1 .. 36 run again on the run's engine (without
writing into RUN; each digest is compared with RUN/rounds.jsonl), then client 812 trains round 37 alone, without padding. Its
numbers are compared with its row in RUN/clients.jsonl: bit for bit where the run's engine was the loop, to rounding for vmap.

Exit codes: 0 when the replay says what the log says (a client that failed then fails now, and its traceback is printed);
1 when it does not; 2 for bad input. The rerun is skipped where the model that the round started from is at hand: for
round 1, and for the round in which a run failed. ``--pdb`` stops at the first line of ``local_update``, and again where it raises.
"""

import argparse
import bdb
import json
import math
import pdb
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flwr.app import ArrayRecord, Message
from safetensors import safe_open

from experiments.config.schema import Config
from experiments.runs.setup import Setup, build
from fl_sim import Callback, LocalRule, Loss, PoolingStrategy, RoundFailed, Run, load, run_rounds, tree
from fl_sim.blocks.plan import BlockPlan, plan_blocks
from fl_sim.blocks.resolve import resolve
from fl_sim.engines.loop import reply_of
from fl_sim.engines.run_block import run_plan
from fl_sim.errors import ConfigError
from fl_sim.grids.messages import arrays_of, client_of, settings_of
from fl_sim.kernels.precision import prepare
from fl_sim.learning.loss import Batch
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.logs.columns import MODEL
from fl_sim.logs.reader import RunLog
from fl_sim.tree import Tree
from fl_sim.wire import flower, records

TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
"""Relative difference that counts as rounding between the loop and another engine, by dtype."""


@dataclass(frozen=True)
class Replay:
    """What came of it."""

    round: int
    client: int
    engine: str
    """That of the run; the replay is always the loop's."""
    recomputed: int
    """Rounds that were run again to get the model that the client received."""
    drift: str = ""
    """The first of these whose model is not the log's; empty if all are."""
    numbers: dict[str, float] = field(default_factory=dict)
    """examples, steps, and the client's metrics: loss, update_norm ..."""
    logged: dict[str, float] = field(default_factory=dict)
    """The same by the client's row in clients.jsonl; empty where it has none (its round failed before it answered)."""
    digest: str = ""
    """SHA-256 of its reply, as ``fl_sim.tree.digest`` takes it; empty where it failed."""
    reason: str = ""
    """Why it failed: its traceback; empty if it did not."""
    agreement: str = ""
    """bit for bit, to rounding, fails as it did, no row to compare with; or what differs."""
    agrees: bool = True
    """Whether the replay says what the log says."""


class _Watch(Callback):
    """Compares the digest of each round with the log's."""

    def __init__(self, digests: Mapping[int, str], versions: Mapping[str, str]) -> None:
        self.digests, self.versions, self.drift = digests, versions, ""

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        logged = self.digests.get(row["round"])
        if logged is not None and logged != row["digest"] and not self.drift:
            made = (
                ", ".join(f"{k} {v}" for k, v in self.versions.items() if k in ("torch", "numpy", "flwr"))
                or "unknown versions"
            )
            why = (
                f"another kind of device, other libraries (it was made with {made}), callbacks, or changed code or data"
            )
            self.drift = f"round {row['round']}: the model has digest {row['digest'][:12]}..., the log says {logged[:12]}...: {why}"
            print(self.drift, file=sys.stderr)


@dataclass
class _Stopping(LocalRule):
    """A rule that opens the debugger at the first line of ``local_update``."""

    rule: LocalRule

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The rule's, step by step."""
        stepped = pdb.Pdb().runcall(self.rule.local_update, model, state, batches, loss, local)
        return cast(tuple[Tree, Tree, Metrics], stepped)


def replay(run: str | Path, server_round: int, client: int, setup: Setup | None = None, debug: bool = False) -> Replay:
    """Recompute one client's round. ``setup``: what the run was built from, where its config cannot name it (objects from Python).

    Raises ValueError for a folder that is no run's, a round that the run did not reach, a client that was not asked.
    """
    log = load(run)
    if "app" in log.config:
        raise ConfigError(
            f"{str(log.path)!r}: a run of a Flower app (--app); its ClientApp is its own, and cannot be replayed here"
        )
    last = (
        int(max(log.rounds["round"].max(), log.clients["round"].max() if len(log.clients) else 0))
        if len(log.rounds)
        else 0
    )
    if not 1 <= server_round <= last:
        raise ValueError(
            f"round = {server_round}: {str(run)!r} has the rounds 1..{last}"
            if last
            else f"{str(run)!r}: no round was run"
        )
    rows = log.clients[(log.clients["round"] == server_round) & (log.clients["phase"] == "train")]
    if server_round in set(log.rounds["round"]) and client not in set(rows.loc[rows["status"] != "dropped", "client"]):
        asked, dropped = (
            sorted(rows.loc[(rows["status"] == "dropped") == x, "client"].astype(int)) for x in (False, True)
        )
        raise not_asked(client, server_round, asked, dropped)
    setup = setup or rebuild(log)
    prepare(setup.config.device, setup.config.threads, setup.config.precision)
    arrays, recomputed, drift = start_of(setup, log, server_round)
    with flower.keyed_hook(setup.config.seed, "configure_train", server_round):
        messages = list(setup.strategy.configure_train(server_round, arrays, setup.train_config, setup.grid))
    dropped = list(getattr(setup.strategy, "dropped", ()))
    plan, model = plan_of(setup, messages, client, server_round, dropped)
    if debug:
        step_through(plan, model, setup)
    answer = run_plan(plan, model, setup.learner, "loop", 1, None).clients[0]
    numbers = {} if answer.reason else {"examples": answer.examples, "steps": answer.steps, **answer.metrics}
    done = Replay(server_round, client, setup.engine.name, recomputed, drift, numbers, reason=answer.reason)
    done = replace(done, digest="" if answer.reason else tree.digest(answer.reply))
    return compare(done, log, setup.config.dtype)


def rebuild(log: RunLog) -> Setup:
    """All that the run was made of, by its config. Raises ConfigError where it cannot be made again."""
    try:
        setup = build(Config.from_dict(log.config))
    except ValueError as error:
        hint = "a run of objects from Python: experiments.replay.replay(run, round, client, setup=build(make(...)))"
        raise ConfigError(f"{str(log.path)!r} cannot be rebuilt: {error} ({hint})") from error
    return setup


def start_of(setup: Setup, log: RunLog, server_round: int) -> tuple[ArrayRecord, int, str]:
    """(the model that the round starts from, rounds run again for it, the first difference from the log)."""
    digests = {int(n): d for n, d in zip(log.rounds["round"], log.rounds["digest"], strict=True)}
    kept = kept_model(log, server_round - 1)
    if (
        server_round > 1
        and kept
        and isinstance(setup.strategy, PoolingStrategy)
        and tree.digest(kept) == digests.get(server_round - 1)
    ):
        return records.encode(kept), 0, ""
    if server_round > 1:
        print(f"recomputing rounds 1..{server_round - 1} on {setup.engine.name}", file=sys.stderr)
    watch, config = _Watch(digests, log.summary.get("versions", {})), setup.config
    result = run_rounds(
        setup.strategy,
        setup.grid,
        setup.initial,
        server_round - 1,
        train_config=setup.train_config,
        failures=config.failures,
        callbacks=[watch],
        seed=config.seed,
    )
    return result.arrays, server_round - 1, watch.drift


def kept_model(log: RunLog, server_round: int) -> Tree:
    """The saved model, if it is the one after ``server_round``; else {}."""
    if not (log.path / MODEL).exists():
        return {}
    with safe_open(log.path / MODEL, "pt") as file:
        saved = (file.metadata() or {}).get("round")
    return log.model() if saved == str(server_round) else {}


def plan_of(
    setup: Setup, messages: Sequence[Message], client: int, server_round: int, dropped: Sequence[int]
) -> tuple[BlockPlan, Tree]:
    """The client's message as a block of one, and its model. Raises ValueError for a client that trains nothing in this round."""
    asked = {client_of(message): message for message in messages}
    if client not in asked:
        raise not_asked(client, server_round, sorted(asked), dropped)
    learner, message = setup.learner, asked[client]
    kind = message.metadata.message_type
    [plan] = plan_blocks(learner, kind, [(0, client, settings_of(message, setup.config.seed))], setup.grid.states, 1)
    return plan, tree.to(records.decode(arrays_of(message)), learner.loss.dtype, learner.loss.device)


def not_asked(client: int, server_round: int, asked: Sequence[int], dropped: Sequence[int]) -> ValueError:
    """The error for a client that trains nothing in a round."""
    why = "is a straggler, whose partial work is dropped" if client in dropped else "was not asked"
    return ValueError(f"client = {client}: {why} in round {server_round}; these trained: {', '.join(map(str, asked))}")


def step_through(plan: BlockPlan, model: Tree, setup: Setup) -> None:
    """Debug the client's ``local_update``; where it raises, once more at that place."""
    print(f"client {plan.orders[0].client}: at the start of local_update; n steps, c goes on, q ends", file=sys.stderr)
    try:
        block, _ = resolve(plan, setup.learner)
        reply_of(replace(block, rule=_Stopping(block.rule)), model, setup.learner)
    except bdb.BdbQuit:
        print("left the debugger", file=sys.stderr)
    except Exception as error:
        traceback.print_exception(error)
        pdb.post_mortem(error.__traceback__)


def compare(done: Replay, log: RunLog, dtype: str) -> Replay:
    """With the verdict: does the client's row say the same?"""
    frame = log.clients
    rows = frame[(frame["round"] == done.round) & (frame["client"] == done.client) & (frame["phase"] == "train")]
    if not len(rows):
        return replace(
            done, agreement="no row to compare with: its round failed before it answered", agrees=not done.drift
        )
    row = rows.iloc[-1]
    if row["status"] == "failed" or done.reason:
        then, now = str(row["reason"] or "").strip().splitlines()[-1:], done.reason.strip().splitlines()[-1:]
        same = then == now
        said = (
            "fails as it did"
            if same
            else f"the log: {' '.join(then) or 'completed'}; the replay: {' '.join(now) or 'completed'}"
        )
        return replace(done, agreement=said, agrees=same and not done.drift)
    logged = {name: float(row[name]) for name in done.numbers if name in row and not math.isnan(row[name])}
    apart = {name: abs(value - done.numbers[name]) / max(abs(value), 1e-12) for name, value in logged.items()}
    worst = max(apart, key=lambda name: apart[name])
    allowed = 0.0 if done.engine == "loop" else TOLERANCE[dtype]
    if apart[worst] == 0:
        said = "bit for bit"
    elif apart[worst] <= allowed:
        said = f"to rounding ({worst} by {apart[worst]:.1e} relative; the run's engine was {done.engine})"
    else:
        said = f"{worst} differs by {apart[worst]:.1e} relative (allowed {allowed:g} for a run on {done.engine})"
    return replace(done, logged=logged, agreement=said, agrees=apart[worst] <= allowed and not done.drift)


def show(done: Replay) -> str:
    """As text."""
    lines = [f"round {done.round}, client {done.client}: replayed on the loop; the run's engine was {done.engine}"]
    if done.recomputed:
        lines.append(
            f"rounds 1..{done.recomputed} recomputed: "
            + (f"NOT the log's from {done.drift}" if done.drift else "every digest is the log's")
        )
    for name, value in done.numbers.items():
        lines.append(
            f"{name:<16}{value!r:<24}{'the log: ' + repr(done.logged[name]) if name in done.logged else ''}".rstrip()
        )
    lines += [f"{'reply':<16}sha256 {done.digest}"] if done.digest else ["it failed:", done.reason.rstrip()]
    return "\n".join([*lines, f"agreement: {done.agreement}"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m experiments.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--round", type=int, required=True, help="from 1")
    parser.add_argument("--client", type=int, required=True, help="partition id")
    parser.add_argument("--pdb", action="store_true", help="step through local_update")
    parser.add_argument("--json", action="store_true", help="the last line of stdout is the result as one JSON object")
    try:
        asked = parser.parse_args(argv)
        done = replay(asked.run, asked.round, asked.client, debug=asked.pdb)
    except RoundFailed as error:
        print(f"the rounds before it cannot be run again: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:  # of argparse: help, or bad input
        return int(end.code or 0)
    print(json.dumps(asdict(done), allow_nan=False) if asked.json else show(done))
    return 0 if done.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
