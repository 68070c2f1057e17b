"""The model and settings that a client received in a past round, computed again from the run's config and logs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import ArrayRecord, Message
from safetensors import SafetensorError, safe_open

from experiments.config.stored import stored_config
from experiments.runs.setup import Setup, build
from fl_sim import Callback, PoolingStrategy, Run, SimulationGrid, run_rounds, tree
from fl_sim.blocks.learner import Settings
from fl_sim.blocks.plan import BlockPlan, plan_blocks
from fl_sim.errors import ConfigError
from fl_sim.grids.messages import client_of, grouped, received_of, settings_of
from fl_sim.grids.virtual_time.timed_round import close_round
from fl_sim.logs.columns import MODEL
from fl_sim.logs.reader import RunLog
from fl_sim.rounds.checkpoint import latest
from fl_sim.rounds.checkpoint_files import kept_attributes
from fl_sim.tree import Tree
from fl_sim.wire import flower, payload, records
from fl_sim.wire.arrivals import AsynchronousStrategy


@dataclass(frozen=True)
class ClientWork:
    """One client's work in one round, ready to be trained."""

    plan: BlockPlan
    """A block that holds this client only."""
    model: Tree
    """The model that the client received."""
    recomputed: int
    """Number of rounds that were run again to get this model."""
    compared: int
    """How many of these have a digest in the log (``digest_every``)."""
    drift: str
    """Describes the first of these rounds whose model differs from the log's; empty if none does."""


class DigestCheck(Callback):
    """Compares the model's digest after each round with the one in the log.

    Parameters
    ----------
    digests : mapping
        The log's digests by round; "" for a round without one (``digest_every``).
    versions : mapping
        Versions of the libraries that the run used, for the message.
    """

    def __init__(self, digests: Mapping[int, str], versions: Mapping[str, str]) -> None:
        self.digests, self.versions, self.drift = digests, versions, ""

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        """Keep and print a message about the first round that differs."""
        logged = self.digests.get(row["round"])
        if not logged or logged == row["digest"] or self.drift:
            return
        used = ", ".join(f"{k} {v}" for k, v in self.versions.items() if k in ("torch", "numpy", "flwr"))
        why = "another kind of device, other libraries (the run used "
        why += f"{used or 'unknown versions'}), callbacks, or changed code or data"
        digests = f"the model has digest {row['digest'][:12]}..., the log says {logged[:12]}..."
        self.drift = f"round {row['round']}: {digests}: {why}"
        print(self.drift, file=sys.stderr)


def rebuild(log: RunLog) -> Setup:
    """Build the parts of a run from its stored config. Raises ConfigError where that is not possible."""
    try:
        setup = build(stored_config(log.config))
    except ValueError as error:
        hint = "a run of objects from Python: experiments.replay.replay(run, round, client, setup=build(make(...)))"
        raise ConfigError(f"{str(log.path)!r} cannot be rebuilt: {error} ({hint})") from error
    return setup


def check_rounds(setup: Setup) -> None:
    """Raise ConfigError for a run without rounds, whose clients start from several models."""
    if isinstance(setup.strategy, AsynchronousStrategy):
        what = f"strategy.name = {setup.config.strategy.name!r}: a client of an asynchronous run is not computed again"
        raise ConfigError(f"{what}; run it again with the same config, whose digest is the same")


def client_work(setup: Setup, log: RunLog, server_round: int, client: int) -> ClientWork:
    """One client's work in one round of a run.

    Parameters
    ----------
    setup : Setup
        The parts of the run.
    log : RunLog
        Its log.
    server_round : int
        Number of the round, from 1.
    client : int
        Partition id of the client.

    Raises
    ------
    ValueError
        For a client that trains nothing in this round; for a fork, whose rounds cannot be run again from the first.
    RoundFailed
        Where an earlier round fails when it is run again.
    """
    check_rounds(setup)
    arrays, recomputed, compared, drift = model_before(setup, log, server_round)
    now = log.rounds.loc[log.rounds["round"] == server_round - 1, "virtual_time"]
    setup.grid.resumed({"virtual_time": float(now.iloc[0])} if now.notna().any() else {})
    setup.grid.begin_round()
    sent = setup.grid.sent.begin(records.decode(arrays), arrays, server_round)
    with flower.keyed_hook(setup.config.seed, "configure_train", server_round):
        messages = list(setup.strategy.configure_train(server_round, sent, setup.train_config, setup.grid))
    by_client = {client_of(message): message for message in messages}
    if client not in by_client:
        dropped = list(getattr(setup.strategy, "dropped", ()))
        raise not_trained(client, server_round, sorted(by_client), dropped)
    trained = settings_of_trained(setup, messages)
    if client not in trained:
        raise not_trained(client, server_round, sorted(trained), [], "was left out by virtual time")
    plan, model = block_of_one(setup, by_client[client], client, trained[client])
    attackers = setup.grid.attackers if isinstance(setup.grid, SimulationGrid) else None
    if attackers is not None and client in attackers.among(trained):
        if attackers.attack.colludes:
            why = f"sent what the attack {setup.config.attack.name} makes of all honest replies of round {server_round}"
            raise ValueError(f"client = {client}: {why}, and not what it trained; replay an honest client")
        plan = replace(plan, attack=attackers.attack)
    return ClientWork(plan, model, recomputed, compared, drift)


def model_before(setup: Setup, log: RunLog, server_round: int) -> tuple[ArrayRecord, int, int, str]:
    """The model that a round starts from, and how it was found.

    Returns
    -------
    (model, number of rounds run again for it, how many of these have a digest in the log, the first difference)
    """
    digests = {int(n): d if isinstance(d, str) else "" for n, d in log.rounds[["round", "digest"]].itertuples(False)}
    kept = setup.loss.form.tree(saved_model(log, server_round - 1))
    if (
        server_round > 1
        and kept
        and isinstance(setup.strategy, PoolingStrategy)
        and tree.digest(kept) == digests.get(server_round - 1)
        and take_states(setup, log, server_round - 1)
    ):
        return records.encode(kept), 0, 0, ""
    if (first := min(digests, default=0)) > 0:
        what = (
            f"{str(log.path)!r} is a fork that begins at round {first}; its rounds cannot be run again from the first"
        )
        raise ConfigError(f"{what}; only the round after that of its model.safetensors can be replayed")
    if server_round > 1:
        print(f"recomputing rounds 1..{server_round - 1} on {setup.engine.name}", file=sys.stderr)
    check, config = DigestCheck(digests, log.summary.get("versions", {})), setup.config
    result = run_rounds(
        setup.strategy,
        setup.grid,
        setup.initial,
        server_round - 1,
        train_config=setup.train_config,
        failures=config.failures,
        callbacks=[check],
        seed=config.seed,
    )
    compared = sum(bool(digests.get(n)) for n in range(1, server_round))
    return result.arrays, server_round - 1, compared, check.drift


def take_states(setup: Setup, log: RunLog, server_round: int) -> bool:
    """Whether a checkpoint has what clients and strategy kept after ``server_round``; they then have it again."""
    begin, _ = latest(log.path, server_round)
    if begin is None or begin.untrusted:
        return False
    kept_attributes.restore(setup.strategy, setup.grid.sent.restored(begin.strategy))
    setup.grid.states.restore(begin.states)
    return True


def saved_model(log: RunLog, server_round: int) -> Tree:
    """The model in the run folder, if it is the one after ``server_round``; else {}. Raises ValueError if damaged."""
    if not (log.path / MODEL).exists():
        return {}
    try:
        with safe_open(log.path / MODEL, "pt") as file:
            saved = (file.metadata() or {}).get("round")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{log.path / MODEL}: no model can be read ({error})") from error
    return log.model() if saved == str(server_round) else {}


def settings_of_trained(setup: Setup, messages: Sequence[Message]) -> dict[int, Settings]:
    """Client id -> the settings with which it trains, of those whose work virtual time uses."""
    learner, grid = setup.learner, setup.grid
    groups = grouped(messages, lambda message: settings_of(message, setup.config.seed))
    if isinstance(grid, SimulationGrid) and grid.time is not None and messages:
        close_round(grid.time, groups, learner, lambda x: learner.loss.received(payload.decode(x)), grid.sent.num_bytes)
    return {client: settings for _, orders in groups.values() for _, client, settings in orders}


def block_of_one(setup: Setup, message: Message, client: int, settings: Settings) -> tuple[BlockPlan, Tree]:
    """(a block that holds only the client that ``message`` is for, the model that the message carries)."""
    learner, kind = setup.learner, message.metadata.message_type
    [plan] = plan_blocks(learner, kind, [(0, client, settings)], setup.grid.states, 1)
    return plan, learner.loss.received(received_of(message))


def not_trained(
    client: int, server_round: int, trained: Sequence[int], dropped: Sequence[int], reason: str = ""
) -> ValueError:
    """The error for a client that trains nothing in a round, or whose work is not used; it names the others.

    ``reason``: why virtual time leaves it out; "": it does not.
    """
    why = reason or ("is a straggler, whose partial work is dropped" if client in dropped else "was not asked")
    return ValueError(
        f"client = {client}: {why} in round {server_round}; these trained: {', '.join(map(str, trained))}"
    )
