"""The errors that callers are meant to catch."""


class ConfigError(ValueError):
    """Bad input: the message names the key, the value seen, and what would be right."""


class RoundFailed(RuntimeError):
    """A round did not do what was requested; the message names the round and the reason (a client's traceback, say)."""
