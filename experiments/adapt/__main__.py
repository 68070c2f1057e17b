"""``python -m experiments.adapt RUN [--task NAME ...] --shots 1,5,10 --steps 0..10``: adapt a run's model to new tasks.

The run's last global model takes steps on a few samples of each task (support), and is judged on other samples of it
(query). Without ``--task`` the tasks are the clients that never trained (``holdout_clients``) of the run's partition,
with all of their samples. With ``--task`` they are those of another task: each of its clients where it has natural ones
or a ``--partition`` is given (where ``--holdout_clients`` is, those alone), else, and with ``--ways``, ``--episodes``
episodes of so many of its classes, drawn at random. Flags of task and partition are those of ``experiments.run``;
``--task folder --task.path DIR`` are pictures of your own in DIR/<class>/, in the size and colours of the run's.

Steps are plain (``--optimizer``) on all of support, at ``--lr``, by default the run's rate of personal evaluation, else
that of its inner loop, else ``local.lr``. An algorithm that makes clients a model of their own (``own_model``) makes it
of support first; one that adapts in its own way (anil, metasgd) takes its own steps. Written are RUN/adapt.csv and
RUN/adapt.png (docs/new-tasks.md); both are replaced.

Exit codes: 0; 1 for a disk that is full; 2 for bad input; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.adapt.adaptation import How, curves, own_steps, start_of
from experiments.adapt.new_tasks import Tasks, new_tasks, unseen_clients
from experiments.adapt.picture import draw
from experiments.command_ends import Arguments, ended, is_full
from experiments.config.schema import Config
from experiments.config.values import seeds
from experiments.runs.recompute import rebuild
from experiments.runs.setup import Setup
from fl_sim import LocalRule, Loss, load
from fl_sim.errors import ConfigError
from fl_sim.kernels.precision import prepare
from fl_sim.learning.networks.queries_alone import normalises_together
from fl_sim.logs.reader import RunLog
from fl_sim.rounds.checkpoint import latest
from fl_sim.rounds.checkpoint_files import kept_attributes
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    parser = Arguments(
        prog="python -m experiments.adapt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--shots", default="1,5,10", help="samples of each class (regression: samples) to adapt on")
    parser.add_argument("--steps", default="0..10", help="numbers of steps, such as 0,1,5 or 0..10")
    parser.add_argument("--lr", type=float, default=0.0, help="rate of the steps (default: the run's)")
    parser.add_argument(
        "--optimizer", choices=("sgd", "adam"), default="", help="rule of the steps (default: the run's)"
    )
    parser.add_argument("--episodes", type=int, default=100, help="most clients or episodes (default: 100)")
    parser.add_argument("--ways", type=int, default=0, help="classes of an episode (default: as many as there can be)")
    parser.add_argument("--queries", type=int, default=0, help="most query samples of a class; 0: all that are left")
    parser.add_argument(
        "--together", action="store_true", help="networks that normalise by the batch: all queries at once"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of clients, episodes and samples")
    parser.add_argument("--json", action="store_true", help="print the table as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print nothing else")
    options, words = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    try:
        return adapted(options, words)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full(error) else 2


def adapted(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Adapt, write and print. Raises ConfigError for bad input, before any work."""
    log = load(options.run)
    if "app" in log.config:
        raise ConfigError(f"{options.run!r}: is a run of a Flower app, whose clients cannot be rebuilt")
    for name, least in (("episodes", 1), ("queries", 0), ("ways", 0), ("seed", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"{name} = {getattr(options, name)}: must be at least {least}")
    shots, steps = (numbers(name, getattr(options, name), least) for name, least in (("shots", 1), ("steps", 0)))
    setup = rebuild(log)
    if words:
        tasks = new_tasks(setup, words, options.ways, options.episodes, options.seed)
    else:
        tasks = unseen_clients(setup, options.run, options.episodes, options.seed)
    loss = Loss(setup.loss.training, tasks.task, setup.loss.dtype, setup.loss.device, setup.loss.precision)
    alone = normalises_together(loss.training) and not options.together
    lr, optimizer = rate(setup.config, options.lr), options.optimizer or setup.config.personalize_optimizer
    prepare(setup.config.device, setup.config.threads, setup.config.precision)
    how = How(shots, steps, lr, optimizer, options.queries, alone)
    model = setup.loss.received(log.model())
    own = own_steps(setup.strategy, loss, sent_beside(setup, log), how)
    rows = curves(loss, model, start_of(setup.strategy, loss), tasks.episodes, how, own)
    return written(Path(options.run), pd.DataFrame(rows), setup, tasks, lr, options)


def sent_beside(setup: Setup, log: RunLog) -> Mapping[str, Tree]:
    """What the run's server sends beside its last model to a client that adapts, from the run's last checkpoint.

    Raises ConfigError where it sends something, and there is no checkpoint of the last model.
    """
    strategy = setup.strategy
    if not isinstance(strategy, Strategy) or type(strategy).adapt is LocalRule.adapt:
        return {}
    if type(strategy).down is Strategy.down:
        return {}
    begin, _ = latest(log.path)
    if begin is None or begin.round != log.summary.get("rounds"):
        why = f"{setup.config.strategy.name} adapts by what its server has learnt beside the model"
        raise ConfigError(f"{str(log.path)!r}: {why}, and there is no checkpoint of the last round that holds it")
    kept_attributes.restore(strategy, begin.strategy)
    return strategy.down({k: begin.model[k] for k in setup.loss.trainable})


def numbers(name: str, text: str, least: int) -> tuple[int, ...]:
    """The numbers that ``text`` lists (1,5,10 or 0..10), ascending, each once. Raises ConfigError."""
    try:
        found = tuple(sorted(set(seeds(text))))
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r}: must be whole numbers, as 1,5,10 or 0..10") from error
    if not found or found[0] < least:
        raise ConfigError(f"{name} = {text!r}: must be {least} or more")
    return found


def rate(config: Config, given: float) -> float:
    """The rate of the steps. Raises ConfigError for one that is no positive number."""
    inner = config.strategy.params.get("inner_lr")
    if given and "personalize_lr" in getattr(config.strategy.component, "refuses", ()):
        raise ConfigError(f"lr = {given:g}: {config.strategy.name} adapts with rates of its own; leave it out")
    found = given or config.personalize_lr or (inner if isinstance(inner, float) else 0.0) or config.local.lr
    if not (math.isfinite(found) and found > 0):
        raise ConfigError(f"lr = {found:g}: must be a number above 0")
    return found


def written(
    folder: Path, table: pd.DataFrame, setup: Setup, tasks: Tasks, lr: float, options: argparse.Namespace
) -> int:
    """Write table and picture, and print. Returns 0."""
    table.to_csv(folder / "adapt.csv", index=False)
    metric = "accuracy" if "accuracy" in table else "loss"
    title = f"{setup.config.strategy.name} of {setup.config.task.name}, adapted to {tasks.what}"
    draw(table, metric, folder / "adapt.png", title)
    facts: dict[str, Any] = {"run": str(folder), "tasks": tasks.what, "lr": lr, "rows": table.to_dict("records")}
    if not options.quiet:
        print(f"{title}, rate {lr:g}: {metric} by shots and steps\n")
        shown = table.pivot(index="shots", columns="steps", values=metric)
        print(f"{shown.to_string(float_format=lambda v: f'{v:.4f}')}\n\n{folder / 'adapt.csv'}\n{folder / 'adapt.png'}")
    if options.json:
        print(json.dumps(facts).replace("NaN", "null"))
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
