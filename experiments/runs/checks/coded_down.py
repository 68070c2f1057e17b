"""The codec of the model's changes to the clients (``codec.down``), and whom it suits."""

from typing import Any

from flwr.serverapp.strategy import Strategy as FlowerStrategy

from clients.shares import making
from experiments.config.choices import COMMON, load, parameters
from experiments.config.schema import Config
from experiments.config.values import check
from fl_sim.errors import ConfigError
from fl_sim.grids.downwards.sent_models import CodedModels, WholeModels
from fl_sim.learning.loss import Loss
from fl_sim.wire.arrivals import AsynchronousStrategy
from fl_sim.wire.codec import Codec
from fl_sim.wire.reference import Changes
from strategies.base.strategy import Strategy
from strategies.codecs import NO_CODEC


def named(config: Config) -> tuple[str, dict[str, Any]]:
    """(the name of the codec downwards, "none" without one; its numbers).

    Raises ConfigError for text that is no name with numbers.
    """
    text = str(config.codec.params.get("down") or NO_CODEC)
    name, *parts = (part.strip() for part in text.split(","))
    if name == NO_CODEC and not parts:
        return NO_CODEC, {}
    known = {k: p for k, p in parameters("codec", load_codec(text, name), name).items() if k not in COMMON["codec"]}
    if name == config.codec.name and not parts:
        return name, {k: v for k, v in config.codec.params.items() if k in known}
    numbers = {k: p.default for k, p in known.items()}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in known or not value:
            takes = ", ".join(f"{k}={p.default}" for k, p in known.items()) or "no numbers"
            raise ConfigError(f"codec.down = {text!r}: {part!r} is no number of {name}, which has {takes}")
        numbers[key] = check(f"codec.down: {key}", known[key].hint, value, strict=False)
    return name, numbers


def load_codec(text: str, name: str) -> Any:
    """The class of a codec. Raises ConfigError that names ``codec.down``, whose value is ``text``."""
    try:
        return load("codec", name)
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"codec.name = {name!r}", f"codec.down = {text!r}")) from error


def sent_models(config: Config, strategy: FlowerStrategy, loss: Loss, clients: int) -> WholeModels:
    """What messages carry of the model.

    Raises ConfigError for what is no codec, and for a strategy of which the server cannot know what its clients hold.
    """
    name, numbers = named(config)
    if name == NO_CODEC:
        return WholeModels()
    refused = f"codec.down = {config.codec.params['down']!r}"
    with making("codec.down", name):
        codec = load_codec(name, name)(**numbers)
    if not isinstance(codec, Codec):
        raise ConfigError(f"{refused}: makes no fl_sim.wire.codec.Codec")
    if codec.keeps_error:
        what = "keeps by itself what it has not sent, and the server's model keeps it too; use another, such as topk"
        raise ConfigError(f"{refused}: {name} {what}")
    if why := problem(config, strategy):
        raise ConfigError(f"{refused}: {why}; leave it out")
    model, home = loss.initial(), set(strategy.at_home) if isinstance(strategy, Strategy) else set()
    names = [k for k, x in model.items() if k in loss.trainable and k not in home and x.is_floating_point()]
    if not names:
        raise ConfigError(f"{refused}: no trained leaf travels, so that there is nothing to code")
    return CodedModels(Changes(codec, config.schedule_rounds or config.rounds, config.seed), names, clients)


def problem(config: Config, strategy: FlowerStrategy) -> str:
    """Why the server cannot know what model each client holds; "" where it can."""
    name = config.strategy.name
    if not isinstance(strategy, Strategy):
        return f"strategy {name} is not one of this project's and decides itself what it sends"
    if isinstance(strategy, AsynchronousStrategy):
        return f"clients of {name} start at any time, from models of different steps"
    if type(strategy).configure_train is not Strategy.configure_train:
        return f"strategy {name} makes its messages itself, and may send clients different models"
    return ""
