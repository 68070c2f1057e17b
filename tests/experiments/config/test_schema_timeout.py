"""``client_timeout`` is refused where nothing could end one client alone."""

from typing import Any

import pytest

from experiments.config.command_line import parse
from experiments.config.stored import stored_config
from experiments.deploy.server_app import deployable
from fl_sim.errors import ConfigError


@pytest.mark.parametrize(
    "settings, why",
    [
        ({"device": "cuda"}, "no way to end one client; leave it out, or use --engine ray"),
        ({"engine": "flower"}, "Flower's simulation has no way to end one client"),
    ],
)
def test_a_time_limit_that_nothing_could_keep_is_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=f"client_timeout = 3: .*{why}"):
        stored_config({"client_timeout": 3.0, **settings})


def test_a_time_limit_is_refused_where_several_clients_end_together() -> None:
    with pytest.raises(ConfigError, match="client_timeout = 3, vmap_over = 'local.lr=.1,.2': one client of a batch"):
        parse(["--client_timeout", "3", "--vmap_over", "local.lr=.1,.2"])
    with pytest.raises(ConfigError, match="client_timeout = 3: on devices the server waits"):
        deployable(stored_config({"client_timeout": 3.0}))
