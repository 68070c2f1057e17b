"""From a config to the clock of virtual time: the devices of a run's clients, deadline and over-selection."""

import math
from dataclasses import replace
from pathlib import Path

from flwr.serverapp.strategy import Strategy as FlowerStrategy

from clients.shares import call, making
from experiments.config.choices import COMMON
from experiments.config.schema import Config
from fl_sim import SimulationGrid
from fl_sim.errors import ConfigError
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.population.devices import Devices, whole_nanoseconds
from strategies.base.strategy import Strategy


def clock(config: Config, clients: int, training_clients: int, strategy: FlowerStrategy) -> VirtualTime:
    """The clock of a run with ``clients`` clients. Raises ConfigError for what a profile refuses."""
    asked = asked_clients(config, training_clients)
    return VirtualTime(
        devices(config, clients),
        wanted=(config.cohort or training_clients) if config.system.over_select > 1 else 0,
        deadline=whole_nanoseconds("system.deadline", config.system.deadline),
        keeps_partial=isinstance(strategy, Strategy) and strategy.partial_work == "keep",
        asked=asked,
    )


def asked_clients(config: Config, training_clients: int) -> int:
    """How many clients a round asks: the cohort, or ``system.over_select`` times as many. Raises ConfigError."""
    cohort = config.cohort or training_clients
    asked = math.ceil(cohort * config.system.over_select - 1e-9)
    if asked > training_clients:
        what = f"of a cohort of {cohort} it makes {asked} clients, and {training_clients} train"
        cure = f"choose at most {training_clients / cohort:g}, or a smaller cohort"
        raise ConfigError(f"system.over_select = {config.system.over_select:g}: {what}; {cure}")
    return asked


def devices(config: Config, clients: int) -> Devices:
    """The devices of ``clients`` clients. Raises ConfigError for what a profile refuses."""
    chosen = config.profile
    params = dict(chosen.params)
    common = {k: params.pop(k) for k in ("step", "sample", "down", "up", "latency", "vanish", "on", "off")}
    if bool(common["on"]) != bool(common["off"]):
        there = "a device is there for profile.on seconds, then away for profile.off"
        raise ConfigError(f"profile.on = {common['on']:g}, profile.off = {common['off']:g}: {there}; give both or none")
    with making("profile.name", chosen.name):
        draw = call(chosen.component, {"clients": clients, "training": clients - config.never_train, **params})
    spells = getattr(draw, "spells", None)
    given = (*getattr(draw, "own", ()), *(("on", "off") if spells is not None else ()))
    if twice := next((name for name in given if common[name]), None):
        what = f"does nothing here: the trace of profile {chosen.name} says it for each device"
        raise ConfigError(f"profile.{twice} = {common[twice]:g}: {what}; leave it out")
    step = getattr(chosen.component, "step", 1.0) if common["step"] is None else common["step"]
    limits = {k: common.pop(k) or math.inf for k in ("down", "up")}
    classes = getattr(chosen.component, "classes", 3)
    count = classes if isinstance(classes, int) else str(params[classes]).count(",") + 1
    return Devices(draw, count, params["seed"], params["per"], **{**common, **limits, "step": step}, spells=spells)


def with_digest(config: Config, grid: object) -> Config:
    """The config with the absolute paths and the digest of the files that its devices come from, if there are any."""
    time = grid.time if isinstance(grid, SimulationGrid) else None
    digest = getattr(time.devices.draw, "digest", "") if time is not None else ""
    if not digest or "digest" not in config.profile.params:
        return config
    params = dict(config.profile.params)
    paths = {k: str(Path(params[k]).expanduser().resolve()) for k in ("file", "spells") if params.get(k)}
    return replace(config, profile=replace(config.profile, params={**params, **paths, "digest": digest}))


def virtual(config: Config) -> str:
    """The settings of virtual time that differ from their defaults, as ``KEY = VALUE, ...``; empty where none do."""
    params = config.profile.params
    keys = {"profile.name": (config.profile.name, "equal"), "stop.virtual_time": (config.stop.virtual_time, 0.0)}
    keys |= {"system.deadline": (config.system.deadline, 0.0), "system.over_select": (config.system.over_select, 1.0)}
    keys |= {f"profile.{k}": (params[k], p.default) for k, p in COMMON["profile"].items()}
    return ", ".join(f"{key} = {value!r}" for key, (value, default) in keys.items() if value != default)
