"""The codec of a run: what its messages say of it, and which strategies it suits."""

import inspect
from typing import Any

from flwr.serverapp.strategy import Strategy as FlowerStrategy

from clients.rules import coding_for
from clients.shares import making
from experiments.config.schema import Config
from fl_sim.blocks.attack import Attack
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.wire.arrivals import AsynchronousStrategy
from fl_sim.wire.codec import Coding
from strategies.base.running_statistics import MeanOfStatistics
from strategies.base.strategy import Strategy
from strategies.codecs import NO_CODEC
from strategies.pools.mean import Mean

LINEAR = (Mean,)
"""Pools of which the result is linear in the updates: a coordinate that was not sent counts as zero there, and the
error that its client keeps corrects that later. To all others a zero is a value like any other."""

CLIENTS_OWN = ("local_update", "payload_update", "streams")
SERVERS_OWN = ("server_step", "payload_step", "aggregate_train")
"""Methods by which a strategy's clients compute more than one gradient, and its server steps otherwise than by lr."""


def own_codecs(config: Config) -> dict[str, type]:
    """The class of a codec of the user's own by its name, for those that cannot be imported, such as a notebook's."""
    component = config.codec.component
    if ":" not in config.codec.name:
        return {}
    return {config.codec.name: component if inspect.isclass(component) else type(component)}


def codec_settings(config: Config) -> dict[str, Any]:
    """What messages for training say of the codec, by dotted name; {} without one."""
    if config.codec.name == NO_CODEC:
        return {}
    own = {k: v for k, v in config.codec.params.items() if k != "down"}
    numbers = {f"codec.{k}": v for k, v in own.items() if v is not None and v != ""}
    return {"codec": config.codec.name, **numbers}


def check_coding(config: Config, strategy: FlowerStrategy, loss: Loss) -> Coding | None:
    """The run's coding in its first round; None without a codec.

    Raises ConfigError for what is no codec, and for a codec that means nothing, or the wrong thing, to the strategy.
    """
    if config.codec.name == NO_CODEC:
        if given := [k for k in ("feedback", "trees", "schedule") if config.codec.params.get(k) not in (None, "")]:
            value = config.codec.params[given[0]]
            raise ConfigError(f"codec.{given[0]} = {value!r}: no codec is named; give one, such as --codec topk")
        return None
    name, numbers = config.codec.name, config.codec.params
    settings = {**codec_settings(config), "server-round": 1, "rounds": config.schedule_rounds or config.rounds}
    try:
        with making("codec.name", name):
            coding = coding_for(settings, own_codecs(config))
    except ConfigError:
        raise
    except ValueError as error:  # of this project's own code: it names the cause
        key = "" if str(error).startswith("codec.") else f"codec.schedule = {numbers.get('schedule', '')!r}: "
        raise ConfigError(f"{key}{error}") from error
    assert coding is not None
    codec = coding.codec
    if codec.keeps_error and numbers.get("feedback"):
        raise ConfigError(f"codec.feedback = True: {name} keeps by itself what it has not sent; leave it out")
    if codec.one_gradient:
        _check_one_gradient(config, strategy)
    if isinstance(strategy, AsynchronousStrategy) and (numbers.get("schedule") or codec.at(1, 2) != codec.at(2, 2)):
        key, value = ("schedule", numbers["schedule"]) if numbers.get("schedule") else ("name", name)
        raise ConfigError(f"codec.{key} = {value!r}: changes with the round, and clients in flight have none in common")
    if isinstance(strategy, Strategy):
        _check_strategy(config, strategy, coding, loss)
    elif not codec.sends_all:
        what = "how a strategy that is not this project's combines replies is not known; use a codec that sends all"
        raise ConfigError(f"codec.name = {name!r}: {what}, such as int8 or fp16")
    _check_attack(config)
    return coding


def _check_strategy(config: Config, strategy: Strategy, coding: Coding, loss: Loss) -> None:
    name, pool = config.codec.name, strategy.pool
    pool = pool.pool if isinstance(pool, MeanOfStatistics) else pool
    if strategy.reply_kind == "none":
        raise ConfigError(f"codec.name = {name!r}: clients of {config.strategy.name} send nothing; leave it out")
    if not coding.codec.sends_all and type(pool) not in LINEAR:
        what = f"strategy {config.strategy.name} pools replies by {type(pool).__name__}"
        why = "to which a coordinate that is not sent is a value like any other; use int8, fp16 or the mean"
        raise ConfigError(f"codec.name = {name!r}: {what}, {why}")
    above = getattr(strategy, "above_pool", pool)  # a level of edges, whose models are means of decoded updates
    if not coding.codec.sends_all and type(above) not in LINEAR:
        what = f"the levels above the edges pool by {type(above).__name__} (strategy.above)"
        raise ConfigError(f"codec.name = {name!r}: {what}; use int8, fp16 or the mean")
    trained = {k: x for k, x in loss.initial().items() if k in loss.trainable and k not in strategy.at_home}
    known = dict(strategy.up(trained))
    if unknown := [tree for tree in coding.trees if tree not in known]:
        has = f"has {', '.join(known)}" if known else "has none"
        raise ConfigError(f"codec.trees = {','.join(coding.trees)!r}: {unknown[0]} is no tree of a reply, which {has}")
    pools = {tree: type(strategy.payload_pools.get(tree, Mean())) for tree in coding.trees}
    if others := {k: p for k, p in pools.items() if p not in LINEAR and not coding.codec.sends_all}:
        [tree, found], *_ = others.items()
        why = "to which a coordinate that is not sent is a value like any other; send it whole"
        raise ConfigError(f"codec.trees = {','.join(coding.trees)!r}: {tree} is pooled by {found.__name__}, {why}")
    if not trained:
        raise ConfigError(f"codec.name = {name!r}: no trained leaf travels, so that there is nothing to code")


def _check_one_gradient(config: Config, strategy: FlowerStrategy) -> None:
    """For a codec whose own momentum stands for that of a server which adds up one gradient of each client."""
    own = {k for k in CLIENTS_OWN + SERVERS_OWN if getattr(type(strategy), k, None) is not getattr(Strategy, k)}
    codec, name = f"codec.name = {config.codec.name!r}", config.strategy.name
    if not isinstance(strategy, Strategy) or own & set(SERVERS_OWN):
        why = "which may have momentum; the codec's own is instead of the server's"
        raise ConfigError(f"{codec}: the server of {name} takes a step of its own, {why}; use fedavg")
    if own or strategy.reply_kind != "weights":
        what = "takes one gradient step a round of plain local training"
        raise ConfigError(f"{codec}: {what}, and the clients of {name} have a rule of their own; use fedavg or fedprox")
    if config.local.steps != 1 or config.local.optimizer != "sgd":
        seen = f"local.steps = {config.local.steps}, local.optimizer = {config.local.optimizer}"
        raise ConfigError(f"{codec}: is for one plain gradient step a round ({seen}); give --local.steps 1 and sgd")


def _check_attack(config: Config) -> None:
    component: Any = config.attack.component
    collusion = getattr(component, "collusion", Attack.collusion)
    if getattr(collusion, "__func__", collusion) is not Attack.collusion:
        what = f"malicious clients of {config.attack.name} agree on updates once all honest ones are there, uncoded"
        raise ConfigError(f"codec.name = {config.codec.name!r}: {what}; leave one of the two out")
