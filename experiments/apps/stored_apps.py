"""Whose code the config of an app's run names: a run folder from a stranger runs no code when its config is repeated.

``config.toml`` of an app's run names the folder of the app and holds its config, with an HMAC by the key of the user
who ran it (``fl_sim.logs.own_key``). A ``config.toml`` whose HMAC is of another key, or that was edited in these
places, runs nothing unless the user names the app with ``--app``. A recipe of any other name is the user's own text.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from fl_sim.errors import ConfigError
from fl_sim.logs import own_key
from fl_sim.logs.columns import CONFIG

SIGNATURE = "app_signature"
"""Key of the HMAC in a ``config.toml``."""
KEYS = ("app", "app_config", SIGNATURE)
"""The keys that only the config of an app's run has."""
_PURPOSE = "fl-sim app"


def signature(app: str, app_config: Mapping[str, object]) -> str:
    """The HMAC of an app's folder and its config; empty where this user has no key and none can be made."""
    return own_key.sign(_PURPOSE, _text(app, app_config))


def check_own(recipe: str, app: str, app_config: Mapping[str, object], signed: object) -> None:
    """Raise ConfigError where ``recipe`` is a run's config that this user did not write."""
    if Path(recipe).name != CONFIG:
        return
    why = "nobody signed it"
    if signed:
        try:
            if own_key.fits(_PURPOSE, _text(app, app_config), str(signed)):
                return
            why = f"{own_key.key_file()} did not sign it, or app or app_config was edited"
        except ValueError as error:
            why = str(error)
    what = f"{recipe} names this app, whose code would run, and {why}"
    raise ConfigError(f"app = {app!r}: {what}; if you trust its code, say so: --app {app}")


def _text(app: str, app_config: Mapping[str, object]) -> bytes:
    return json.dumps([app, dict(app_config)], sort_keys=True, default=str).encode()
