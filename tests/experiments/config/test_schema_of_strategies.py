"""Settings of training and aggregation, and each parameter of a strategy, act or are refused with every strategy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from experiments.config.choices import Parameter, offered, parameters
from fl_sim.registry import NameOf
from tests.experiments.config.setting_walks import REFUSED, WORLD, folder_of, or_refused, settings, wrote
from tests.experiments.config.test_schema_every_setting import SETTINGS

OURS = offered("strategy")
FLOWERS = [f"flwr.serverapp.strategy:{name}" for name in ("FedAvg", "FedAdam", "FedMedian", "Krum")]
SHARED = [key for key in SETTINGS if key.startswith("local.") or key in ("server.lr", "weighting", "system.stragglers")]
"""Settings that fedavg follows, as ``test_schema_every_setting.py`` shows; what other strategies do is shown here."""
_wrote: dict[str, object] = {}


def wrote_once(given: dict[str, Any]) -> object:
    """What a run wrote; one run for equal settings."""
    key = repr({k: v for k, v in given.items() if k != "out"})
    if key not in _wrote:
        _wrote[key] = wrote(folder_of(given))
    return _wrote[key]


MORE_STEPS = ("local.last_batch", "system.stragglers", "local.momentum", "local.lr_schedule")
"""Settings that act where a client takes several steps."""


OF_LATER_STEPS = ("local.optimizer", "local.weight_decay", "local.clip_norm")
"""Settings whose first step shows in the new model, and in the log only later where that stays with the clients."""
NEEDS: dict[str, dict[str, Any]] = {
    "ditto": {"partition.held_out": 0.3, "personalize_steps": 1},  # its models are seen by personal evaluation alone
    "pfedme": {"partition.held_out": 0.3, "personalize_steps": 1},
    "fedrep": {"model": f"{WORLD}:two_layers"},  # in a network of one layer nothing but the head would be there
    "r2d2": {"model": f"{WORLD}:two_layers"},  # the last layer itself is not trained
    "metaoptnet": {"model": f"{WORLD}:two_layers", "strategy.solver_steps": 3},
    "fedbn": {"model": f"{WORLD}:normalised"},
    "adaptive": {"validation": 0.2},
    "fedbuff": {"strategy.buffer": 2},  # of four clients in flight
    "asyncsgd": {"rounds": 3},  # until then no reply is two steps late
    "ssp": {"strategy.s": 0, "profile": "halfnormal", "rounds": 9},
}
"""Settings without which a strategy runs not, or shows nothing."""


def beside(strategy: str, key: str) -> dict[str, Any]:
    """Settings by which ``key`` acts: maml and its kin take the second batch of a pass in their second inner step."""
    if key not in MORE_STEPS and (strategy, key in OF_LATER_STEPS) != ("local-only", True):
        return {}
    return {"strategy.inner_steps": 2} if strategy in ("maml", "anil", "metasgd") else {"local.steps": 4}


@pytest.mark.parametrize("key", SHARED)
@pytest.mark.parametrize("strategy", [name for name in OURS if name not in ("fedavg", "fedprox")])
def test_a_setting_acts_or_is_refused_with_each_strategy(key: str, strategy: str, tmp_path: Path) -> None:
    value, base = (*SETTINGS[key], {})[:2]
    refused = getattr(OURS[strategy], "refuses", ())
    value = {"weighting": {"uniform": "examples"}.get(OURS[strategy].weighting, "uniform")}.get(key, value)
    refused = (*refused, *(k for k, wrong in OURS[strategy]().wrong_values.items() if k == key and value in wrong))
    base = {k: v for k, v in base.items() if k != "local.epochs"}
    entry = value, {k: v for k, v in {**base, **beside(strategy, key)}.items() if k not in refused}
    own = {"strategy": strategy, **NEEDS.get(strategy, {})}
    before, after = (settings(key, entry, each, tmp_path, **own) for each in (False, True))
    found = or_refused(key, lambda: wrote(folder_of(after)))
    assert found == REFUSED if key in refused else found not in (REFUSED, wrote_once(before))


@pytest.mark.parametrize("key", ["server.lr", "weighting", "system.stragglers"])
@pytest.mark.parametrize("strategy", FLOWERS)
def test_what_flower_s_strategies_decide_themselves_is_refused(key: str, strategy: str, tmp_path: Path) -> None:
    given = settings(key, SETTINGS[key], True, tmp_path, strategy=strategy)
    assert or_refused(key, lambda: folder_of(given)) == REFUSED


def others(parameter: Parameter) -> Iterator[object]:
    """Values of a parameter that are not its default."""
    hint, default = parameter.hint, parameter.default
    if names := NameOf.names(hint):
        yield from (name for name in names if name != default)
    elif default == "mean":
        yield "median"  # another pool
    elif default == "":
        yield "0"  # a layer of the tiny world's network
    elif get_origin(hint) is Literal:
        yield from (value for value in get_args(hint) if value != default)
    elif isinstance(default, bool):
        yield not default
    elif isinstance(default, (int, float)):
        yield default + 1 if isinstance(default, int) else 1.5 * default + 0.01
    else:
        raise AssertionError(f"{parameter}: say here which other values it has")


OWN = [
    (name, key, value)
    for name, component in OURS.items()
    for key, parameter in parameters("strategy", component).items()
    for value in others(parameter)
]


@pytest.mark.parametrize("strategy, key, value", OWN, ids=[f"{name}.{key}-{value}" for name, key, value in OWN])
def test_each_parameter_of_a_strategy_acts_or_is_refused(strategy: str, key: str, value: Any, tmp_path: Path) -> None:
    more = {"local.steps": 2, "model": f"{WORLD}:two_layers"}  # a first step is often FedAvg's
    more = {k: v for k, v in more.items() if k not in getattr(OURS[strategy], "refuses", ())} | NEEDS.get(strategy, {})
    given = settings("", (None,), False, tmp_path, strategy=strategy, **{"rounds": 2, **more})
    found = or_refused(f"strategy.{key}", lambda: wrote(folder_of({**given, f"strategy.{key}": value})))
    assert found == REFUSED or found != wrote_once(given)
