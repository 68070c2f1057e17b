"""``python -m experiments.replay RUN --round 37 --client 812 [--pdb] [--json]``: train one client's past round again.

RUN/config.toml is rebuilt; rounds 1 .. 36 run again on the run's engine, without writing into RUN, and the model's
digest after each that has one in RUN/rounds.jsonl is compared with it. Then client 812 trains round 37 alone on the
loop, without padding. Its numbers are compared with its row in RUN/clients.jsonl: bit for bit where the run's engine
was the loop, up to rounding for vmap.

Exit codes: 0 when the replay agrees with the log (a client that failed then fails in the same way, and its traceback is
printed); 1 when it does not; 2 for bad input. No round is run again where the model that the round started from is
stored: for round 1, and, by its checkpoint, for the round in which a run failed. ``--pdb`` stops at the first line of
``local_update``, and again where it raises.
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
from typing import cast

import pandas as pd

from experiments.command_ends import Arguments, ended
from experiments.runs.recompute import ClientWork, client_work, not_trained, rebuild
from experiments.runs.setup import Setup
from fl_sim import LocalRule, Loss, RoundFailed, load, tree
from fl_sim.blocks.resolve import resolve
from fl_sim.engines.loop import reply_of
from fl_sim.engines.malicious import learner_of
from fl_sim.engines.run_block import run_plan
from fl_sim.errors import ConfigError
from fl_sim.kernels.precision import prepare
from fl_sim.learning.loss import Batch
from fl_sim.learning.rule import Metrics, Update
from fl_sim.learning.settings import Local
from fl_sim.logs.reader import RunLog
from fl_sim.tree import Tree

TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
"""Relative difference that counts as rounding between the loop and another engine, by dtype."""


@dataclass(frozen=True)
class Replay:
    """The result of a replay."""

    round: int
    client: int
    engine: str
    """The run's engine; the replay itself always uses the loop."""
    recomputed: int
    """Number of rounds that were run again to get the model that the client received."""
    compared: int = 0
    """How many of these have a digest in the log: all, unless the run had ``digest_every``."""
    drift: str = ""
    """Describes the first of these rounds whose model differs from the log's; empty if none does."""
    numbers: dict[str, float] = field(default_factory=dict)
    """The client's numbers in the replay: examples, steps, and its metrics, such as loss and update_norm."""
    logged: dict[str, float] = field(default_factory=dict)
    """The same numbers in the client's row of clients.jsonl; empty where its round failed before it answered."""
    digest: str = ""
    """SHA-256 of the client's reply, as ``fl_sim.tree.digest`` computes it; empty where the client failed."""
    reason: str = ""
    """Traceback of the client's failure; empty if it did not fail."""
    agreement: str = ""
    """How the replay compares with the log, in words: ``bit for bit``, ``fails as it did``, or the difference."""
    agrees: bool = True
    """Whether the replay agrees with the log."""


@dataclass
class _DebuggedRule(LocalRule):
    """A rule that opens the debugger at the first line of ``local_update``, or of ``payload_update``."""

    rule: LocalRule

    def home(self, loss: Loss) -> Sequence[str]:
        """The rule's own."""
        return self.rule.home(loss)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        """The rule's own update, under the debugger."""
        result = pdb.Pdb().runcall(self.rule.local_update, model, state, batches, loss, local)
        return cast(tuple[Tree, Tree, Metrics], result)

    def payload_update(
        self,
        model: Tree,
        payload: Mapping[str, Tree],
        state: Tree,
        batches: Mapping[str, Iterable[Batch]],
        loss: Loss,
        local: Local,
    ) -> Update:
        """The rule's own update with a payload, under the debugger."""
        if type(self.rule).payload_update is LocalRule.payload_update:
            return self.local_update(model, state, batches, loss, local)
        result = pdb.Pdb().runcall(self.rule.payload_update, model, payload, state, batches, loss, local)
        return cast(Update, result)


def replay(run: str | Path, server_round: int, client: int, setup: Setup | None = None, debug: bool = False) -> Replay:
    """Train one client's round of a finished run again, and compare the result with the log.

    Parameters
    ----------
    run : str or Path
        The run folder.
    server_round : int
        Number of the round, from 1.
    client : int
        Partition id of the client.
    setup : Setup, optional
        The parts of the run, where its config cannot name them (objects passed from Python); default: built from the
        config.
    debug : bool
        Whether to step through ``local_update`` in the debugger first.

    Raises
    ------
    ValueError
        For a folder without a run, a round that the run did not reach, a client that does not train in the round.
    """
    log = load(run)
    if "app" in log.config:
        raise ConfigError(
            f"{str(log.path)!r}: a run of a Flower app (--app); its ClientApp is its own, and cannot be replayed here"
        )
    check_trained(log, run, server_round, client)
    setup = setup or rebuild(log)
    prepare(setup.config.device, setup.config.threads, setup.config.precision)
    work = client_work(setup, log, server_round, client)
    if debug:
        step_through(work, setup)
    answer = run_plan(work.plan, work.model, setup.learner, "loop", 1, None).clients[0]
    numbers = {} if answer.reason else {"examples": answer.examples, "steps": answer.steps, **answer.metrics}
    digest = "" if answer.reason else tree.digest(answer.reply)
    result = Replay(server_round, client, setup.engine.name, work.recomputed, work.compared, work.drift, numbers)
    return compare_with_log(replace(result, digest=digest, reason=answer.reason), log, setup.config.dtype)


def check_trained(log: RunLog, run: str | Path, server_round: int, client: int) -> None:
    """Raise ValueError for a round that the log does not have, or in which the client did not train."""
    last = 0
    if len(log.rounds):
        last = int(max(log.rounds["round"].max(), log.clients["round"].max() if len(log.clients) else 0))
    if not 1 <= server_round <= last:
        found = f"round = {server_round}: {str(run)!r} has the rounds 1..{last}"
        raise ValueError(found if last else f"{str(run)!r}: no round was run")
    rows = log.clients[(log.clients["round"] == server_round) & (log.clients["phase"] == "train")]
    if server_round in set(log.rounds["round"]) and client not in set(rows.loc[rows["status"] != "dropped", "client"]):
        trained, dropped = (
            sorted(rows.loc[(rows["status"] == "dropped") == status, "client"].astype(int)) for status in (False, True)
        )
        why = rows.loc[(rows["client"] == client) & rows["reason"].notna(), "reason"]
        left_out = f"was left out by virtual time ({why.iloc[0]})" if len(why) else ""
        raise not_trained(client, server_round, trained, dropped, left_out)


def step_through(work: ClientWork, setup: Setup) -> None:
    """Debug the client's ``local_update``; where it raises, open the debugger again at that place."""
    client = work.plan.orders[0].client
    print(f"client {client}: at the start of local_update; n steps, c goes on, q ends", file=sys.stderr)
    try:
        attack = work.plan.attack
        learner = setup.learner if attack is None else learner_of(setup.learner, attack)
        block, _ = resolve(work.plan, learner, work.model)
        reply_of(replace(block, rule=_DebuggedRule(block.rule)), work.model, learner)
    except bdb.BdbQuit:
        print("left the debugger", file=sys.stderr)
    except Exception as error:
        traceback.print_exception(error)
        pdb.post_mortem(error.__traceback__)


def compare_with_log(result: Replay, log: RunLog, dtype: str) -> Replay:
    """The result with ``logged``, ``agreement`` and ``agrees`` filled in from the client's row of the log."""
    frame = log.clients
    rows = frame[(frame["round"] == result.round) & (frame["client"] == result.client) & (frame["phase"] == "train")]
    if not len(rows):
        why = "no row to compare with: its round failed before it answered"
        return replace(result, agreement=why, agrees=not result.drift)
    row = rows.iloc[-1]
    if row["status"] == "failed" or result.reason:
        return compare_failures(result, row)
    logged = {name: float(row[name]) for name in result.numbers if name in row and not math.isnan(row[name])}
    apart = {name: abs(value - result.numbers[name]) / max(abs(value), 1e-12) for name, value in logged.items()}
    worst = max(apart, key=lambda name: apart[name])
    allowed = 0.0 if result.engine == "loop" else TOLERANCE[dtype]
    if apart[worst] == 0:
        agreement = "bit for bit"
    elif apart[worst] <= allowed:
        agreement = f"to rounding ({worst} by {apart[worst]:.1e} relative; the run's engine was {result.engine})"
    else:
        limit = f"allowed {allowed:g} for a run on {result.engine}"
        agreement = f"{worst} differs by {apart[worst]:.1e} relative ({limit})"
    return replace(result, logged=logged, agreement=agreement, agrees=apart[worst] <= allowed and not result.drift)


def compare_failures(result: Replay, row: pd.Series) -> Replay:
    """The result where the client failed in run or replay; the two agree if both reasons have the same last line."""
    then, now = str(row["reason"] or "").strip().splitlines()[-1:], result.reason.strip().splitlines()[-1:]
    same = then == now
    difference = f"the log: {' '.join(then) or 'completed'}; the replay: {' '.join(now) or 'completed'}"
    return replace(result, agreement="fails as it did" if same else difference, agrees=same and not result.drift)


def same_digests(result: Replay) -> str:
    """What the comparison of the rounds that were run again says, where none differs."""
    if result.compared == result.recomputed:
        return "every digest is the log's"
    if not result.compared:
        return "the log has a digest of none of them (digest_every), so that none was compared"
    return f"the log has a digest of {result.compared} of them (digest_every), and each is the same"


def show(result: Replay) -> str:
    """The result as text for the terminal."""
    lines = [
        f"round {result.round}, client {result.client}: replayed on the loop; the run's engine was {result.engine}"
    ]
    if result.recomputed:
        verdict = f"NOT the log's from {result.drift}" if result.drift else same_digests(result)
        lines.append(f"rounds 1..{result.recomputed} recomputed: {verdict}")
    for name, value in result.numbers.items():
        logged = f"the log: {result.logged[name]!r}" if name in result.logged else ""
        lines.append(f"{name:<16}{value!r:<24}{logged}".rstrip())
    lines += [f"{'reply':<16}sha256 {result.digest}"] if result.digest else ["it failed:", result.reason.rstrip()]
    return "\n".join([*lines, f"agreement: {result.agreement}"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = Arguments(
        "python -m experiments.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--round", type=int, required=True, help="from 1")
    parser.add_argument("--client", type=int, required=True, help="partition id")
    parser.add_argument("--pdb", action="store_true", help="step through local_update")
    parser.add_argument("--json", action="store_true", help="the last line of stdout is the result as one JSON object")
    try:
        options = parser.parse_args(argv)
        result = replay(options.run, options.round, options.client, debug=options.pdb)
    except RoundFailed as error:
        print(f"the rounds before it cannot be run again: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:  # of argparse: help, or bad input
        return int(end.code or 0)
    print(json.dumps(asdict(result), allow_nan=False) if options.json else show(result))
    return 0 if result.agrees else 1


if __name__ == "__main__":
    sys.exit(ended(main))
