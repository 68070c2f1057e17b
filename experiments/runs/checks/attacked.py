"""The malicious clients of a run, from its config."""

from clients.shares import making
from experiments.config.schema import HONEST, Config
from fl_sim import Task
from fl_sim.blocks.attack import Attack
from fl_sim.errors import ConfigError
from fl_sim.grids.attackers import Attackers


def attackers(config: Config, task: Task) -> Attackers | None:
    """The run's malicious clients; None where every client is honest.

    Raises ConfigError for what is no attack, and for one that means nothing to the task.
    """
    chosen = config.attack
    if chosen.name == HONEST:
        return None
    numbers = {k: v for k, v in chosen.params.items() if k != "share"}
    with making("attack.name", chosen.name):
        attack = chosen.component if chosen.is_object else chosen.component(**numbers)
    if not isinstance(attack, Attack):
        kind = type(attack).__name__
        raise ConfigError(f"attack.name = {chosen.name!r}: makes a {kind}; it must be a fl_sim.blocks.attack.Attack")
    if why := attack.problem(task):
        raise ConfigError(f"attack.name = {chosen.name!r}: {why}")
    return Attackers(attack, chosen.params["share"], config.seed)
