"""How a personal evaluation treats the held-out samples of networks whose evaluation normalises by the batch."""

from experiments.runs.setup import Setup
from fl_sim.errors import ConfigError
from fl_sim.learning.networks.queries_alone import normalises_together


def queries_of(setup: Setup) -> str | None:
    """``together`` or ``alone``; None where there is no personal evaluation, or each sample is alone anyway."""
    evaluates = setup.config.personalize_steps and normalises_together(setup.loss.training)
    return setup.config.personalize_queries if evaluates else None


def check_queries(setup: Setup) -> None:
    """Raise ConfigError for ``personalize_queries = alone`` of a network whose outputs do not depend on the batch."""
    if setup.config.personalize_queries == "alone" and queries_of(setup) is None:
        what = f"does nothing here: the evaluation of model {setup.config.model.name} normalises by no batch"
        cure = "leave it out, or take a network with BatchNorm(track_running_stats=False), such as conv4"
        raise ConfigError(f"personalize_queries = 'alone': {what}; {cure}")
