"""``python -m experiments.sweep [RECIPE] [--key value ...] --vary 'KEY=VALUE;VALUE' ... [--seed 0..4] [--out DIR]``.

Exit codes: 0 where every run completed or was pruned; 1 where one failed, or its process died; 2 for bad input, and
where processes cannot start; 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from experiments.command_ends import Arguments, ended, is_full
from experiments.config.command_line import Invocation, parse
from experiments.config.schema import Config
from experiments.sweep.axis_values import Axis, Point, axes_of
from experiments.sweep.sweep_plan import Plan
from experiments.sweep.sweep_runs import run_sweep, text_of
from fl_sim.errors import ConfigError
from fl_sim.logs.writer import plain

EPILOG = """examples:
  python -m experiments.sweep --strategy fedprox --validation 0.1 --seed 0..4 \\
      --vary 'strategy.mu=0;0.01;0.1' --vary 'partition.alpha=0.1;1' --partition dirichlet --out runs/mu
  python -m experiments.sweep quickstart --validation 0.1 --trials 50 --vary 'local.lr=log:1e-3..1' \\
      --vary 'local.epochs=int:1..5' --vary 'local.optimizer=sgd;adam'

The same command goes on with a sweep that was interrupted or killed: runs that are over are not made again, and those
that were under way go on from their last checkpoint. All other flags are those of experiments.run."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    own, rest = parser().parse_known_args(sys.argv[1:] if argv is None else argv)
    try:
        axes = axes_of(own.vary)
        call = parse(rest) if rest else parse(["quickstart"])
        check(call, axes, rest)
        folder = Path(call.configs[0].out)
        if "out" not in call.explicit:  # the same command finds its folder again
            said = [word for word in rest if word not in ("--quiet", "--json")]
            folder /= f"sweep-{hashlib.sha256(json.dumps([said, own.vary, own.search]).encode()).hexdigest()[:8]}"
        plan = Plan(
            axes,
            lambda point: configs_of(rest, point),
            folder,
            own.trials,
            own.search,
            own.search_seed,
            own.parallel,
            own.batch == "true",
            own.prune,
            own.choose_by,
        )
        found = run_sweep(plan, (lambda line: None) if call.quiet else lambda line: print(line, file=sys.stderr))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full(error) else 2
    if not call.quiet:
        print(f"\n{text_of(found)}\n\ntable: {plan.folder / 'table.csv'}")
    if call.json:
        facts = {"out": str(plan.folder), "failed": found.failed, "chosen": found.chosen}
        print(json.dumps(plain({**facts, "trials": found.table.to_dict("records")})))
    return 1 if found.failed else 0


def parser() -> Arguments:
    """The sweep's own options."""
    found = Arguments(
        prog="python -m experiments.sweep",
        usage="%(prog)s [RECIPE] [--key value ...] --vary 'KEY=VALUE;VALUE' [--vary ...] [--seed 0..4] [--out DIR]",
        description="Runs at every combination of values, or at those that a search tries, each with all seeds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    say = found.add_argument
    say("--vary", action="append", default=[], metavar="KEY=VALUES", help="values with ; between: "
        "'strategy.mu=0;0.01'; for a search also 1e-3..1e-1, log:1e-3..1e-1, int:1..20")  # fmt: skip
    say("--trials", type=int, default=0, metavar="N", help="trials of a search by Optuna; 0: the grid of all values")
    say("--search", choices=("tpe", "random"), default="tpe", help="how a search chooses what it tries (default: tpe)")
    say("--search_seed", type=int, default=0, metavar="SEED", help="keys what a search tries (default: 0)")
    say("--parallel", type=int, default=1, metavar="N", help="processes that make runs at the same time (default: 1)")
    say("--batch", choices=("true", "false"), default="true", help="train runs that differ in plain numbers alone as "
        "one batch (default: true)")  # fmt: skip
    say("--prune", action="store_true", help="a search ends runs whose validation falls behind earlier trials' median")
    say("--choose_by", default="", metavar="COLUMN", help="the column of the validation samples that chooses (default: "
        "val_accuracy, else val_loss)")  # fmt: skip
    return found


def check(call: Invocation, axes: Sequence[Axis], words: Sequence[str]) -> None:
    """Raise ConfigError for options of a run that mean nothing to a sweep, and for a key that has a value already."""
    for option in ("app", "resume", "dry_run", "vmap_over", "run_config", "trust_pickle", "track", "callback"):
        if value := getattr(call, option):
            raise ConfigError(f"{option} = {value!r}: means nothing to a sweep; leave it out")
    said = {word[2:].partition("=")[0].replace("-", "_").removesuffix(".name") for word in words if word[:2] == "--"}
    for one in axes:
        if one.key in said:
            raise ConfigError(
                f"vary = {one.key!r}: has a value of its own (--{one.key}), which these replace; leave one out"
            )


def configs_of(words: Sequence[str], point: Point) -> Sequence[Config]:
    """The configs of a point, one for each seed. Raises ConfigError."""
    flags = [f"--{key}={value}" for key, value in point.items()]
    return parse([*words, *flags]).configs


if __name__ == "__main__":
    sys.exit(ended(main))
