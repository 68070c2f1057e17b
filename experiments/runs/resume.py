"""``--resume RUN``: a run continues from its last checkpoint. ``--fork RUN@N``: a new run begins at a checkpoint.

A resumed run has the results that it would have had without the interruption: the same model and, except for times,
the same log lines.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.config.plan_checks import scheduled
from experiments.config.recipe_files import fork_parts, make
from experiments.config.schema import Config
from experiments.config.stored import stored_config
from experiments.runs import stop
from experiments.runs.forks.fork import ForkNumbers, check_model, taken_over
from experiments.runs.plan import check_used
from experiments.runs.setup import Setup, build
from fl_sim import Callback
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG, SUMMARY
from fl_sim.logs.reader import check
from fl_sim.rounds import checkpoint
from fl_sim.rounds.checkpoint import Checkpoint

FREE = (
    *("rounds", "time_limit", "client_timeout", "checkpoint_every", "checkpoint_keep", "digest_every"),
    *("schedule_rounds", "silo.shares", "silo.balance", "silo.timeout", "silo.wire"),
)
"""Settings that may change when a run continues: they change no bit of the rounds done, or are checked separately."""
OF_ORDERED = ("silo.processes", "silo.shares", "silo.balance")
"""Settings that change no bit of a silo whose ``silo.reduce`` is ordered, and may change then; they change others."""


@dataclass(frozen=True)
class Resumed:
    """A run folder whose run continues: after the checkpoint ``begin``, or from its start where there is none."""

    folder: Path
    begin: Checkpoint | None
    finished: Mapping[str, object] | None = None
    """The stored summary, where nothing is left to do."""


def resume(folder: Path, config: Config, trust_pickle: bool = False) -> Resumed:
    """Where the run in ``folder`` continues.

    ``config`` is the stored config with the settings given beside ``--resume``; ``trust_pickle``: whether to read a
    pickle that this user did not write. Raises ConfigError where the settings would change the rounds done, or where
    the checkpoint holds such a pickle.
    """
    check(folder)
    stored = make(str(folder / CONFIG))
    begin, wrong = checkpoint.latest(folder, trust_pickle=trust_pickle)
    for line in wrong:
        instead = "the run starts again" if begin is None else f"the checkpoint of round {begin.round} is used"
        print(f"warning: {line}; {instead}", file=sys.stderr)
    if begin is not None:
        check_usable(f"resume = {str(folder)!r}", begin)
    before = flatten(stored.to_dict())
    if begin is not None:  # its chunk may be larger than the stored one, which memory may have reduced since
        config_then = stored_config(begin.facts["config"]).to_dict()
        before |= {k: v for k, v in flatten(config_then).items() if k != "chunk"}
    check_unchanged(folder, before, config)
    if begin is not None and begin.round > config.rounds:
        raise ConfigError(f"rounds = {config.rounds}: {folder} has done {begin.round}; give at least as many")
    done = summary_of(folder)
    if done and begin is not None and is_done(done, begin, config):
        return Resumed(folder, begin, done)
    return Resumed(folder, begin)


def check_unchanged(folder: Path, old: Mapping[str, object], config: Config) -> None:
    """Raise ConfigError where ``config`` changes a setting of the run, or its number of rounds against a schedule.

    ``old`` : the run's settings by dotted name.
    """
    new = flatten(config.to_dict())
    changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and not free(k, old, new)]
    if changed:
        differences = ", ".join(f"{k} = {new.get(k)!r} (it began with {old.get(k)!r})" for k in changed)
        cure = "a run goes on as it began; leave that out, or begin a new one with --fork"
        raise ConfigError(f"resume = {str(folder)!r}: {differences}: {cure}")
    before = old.get("schedule_rounds", 0)
    setting = scheduled(config)
    if setting and (config.schedule_rounds or config.rounds) != (before or old["rounds"]):
        key = "rounds" if config.schedule_rounds == before else "schedule_rounds"
        why = f"{setting} depends on the number of rounds, which was {before or old['rounds']}"
        cure = "only a run with schedule_rounds set can be made longer"
        raise ConfigError(f"{key} = {getattr(config, key)}: {why}; {cure}")


def free(key: str, old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    """Whether a setting may change when a run continues."""
    if key in OF_ORDERED:
        return all(x.get("silo.processes") and x.get("silo.reduce") == "ordered" for x in (old, new))
    return key in FREE or (key.startswith("ray.") and key != "ray.engine")


def is_done(done: Mapping[str, object], begin: Checkpoint, config: Config) -> bool:
    """Whether the run did everything that ``config`` requests."""
    ended = str(done.get("stopped") or "").startswith(stop.FINAL_REASONS)
    return done["rounds"] == begin.round and (ended or (done["status"] == "completed" and begin.round >= config.rounds))


def summary_of(folder: Path) -> dict[str, object] | None:
    """The stored summary, if there is one."""
    path = folder / SUMMARY
    found: dict[str, object] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def ready(config: Config, trust_pickle: bool = False) -> Setup:
    """The parts of a new run. Raises ConfigError, also for settings that do nothing and a fork that cannot begin."""
    setup = build(config)
    check_used(setup)
    start_of(setup, None, trust_pickle)
    return setup


def start_of(
    setup: Setup, resumed: Resumed | None, trust_pickle: bool = False
) -> tuple[Checkpoint | None, list[Callback]]:
    """(the checkpoint at which a run starts or goes on, callbacks that give its strategy the numbers of its config).

    Raises ConfigError where its fork cannot begin.
    """
    if resumed is not None and resumed.begin is not None:
        return resumed.begin, []
    begin = forked(setup.config, trust_pickle)
    if begin is None:
        return None, []
    check_model(begin, setup)
    return begin, [ForkNumbers(setup.strategy, begin)]


def forked(config: Config, trust_pickle: bool = False) -> Checkpoint | None:
    """The checkpoint at which a run with ``fork`` begins; None without ``fork``.

    ``experiments.runs.forks.fork`` says which states are kept. Raises ConfigError where there is no such checkpoint,
    where its round is not before the last, for a setting that the states that are kept do not allow, and where it holds
    a pickle of the strategy that this user did not write, unless ``trust_pickle``.
    """
    if not config.fork:
        return None
    name, text = fork_parts(config.fork)
    folder, number = Path(name), int(text) if text is not None and text.isdecimal() else None
    if text is not None and number is None:
        raise ConfigError(f"fork = {config.fork!r}: {text!r} is no round; it must be RUN@N or RUN")
    if (folder / CONFIG).is_file():
        check(folder)
    have = [checkpoint.round_of(path) for path in checkpoint.listed(folder)]
    begin, wrong = checkpoint.latest(folder, number, trust_pickle)
    if begin is None:
        there = f"it has checkpoints of rounds {', '.join(map(str, have))}" if have else "it has no checkpoint"
        more = f" ({wrong[0]})" if wrong else "; a run with --checkpoint_keep 0 keeps all"
        raise ConfigError(f"fork = {config.fork!r}: {there}{more}")
    if begin.round >= config.rounds:
        raise ConfigError(f"rounds = {config.rounds}: the fork begins at round {begin.round}; give more")
    for line in wrong:
        print(f"warning: {line}; the checkpoint of round {begin.round} is used", file=sys.stderr)
    check_usable(f"fork = {config.fork!r}", replace(begin, untrusted=""))
    kept = taken_over(begin, config)
    check_usable(f"fork = {config.fork!r}", replace(begin, untrusted=kept.untrusted))
    return kept


def check_usable(what: str, begin: Checkpoint) -> None:
    """Raise ConfigError for a checkpoint with a pickle that is not trusted, and for one of no run of this project."""
    if not isinstance(begin.facts.get("config"), Mapping):
        raise ConfigError(f"{what}: the checkpoint of round {begin.round}: it holds no config, as those of runs do")
    if begin.untrusted:
        raise ConfigError(f"{what}: the checkpoint of round {begin.round}: {begin.untrusted}")
