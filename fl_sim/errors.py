"""The errors that callers are meant to catch."""


class ConfigError(ValueError):
    """Bad input: the message names the key, the value seen, and what would be right."""


class RoundFailed(RuntimeError):
    """A round did not do what was requested; the message names the round and the reason (a client's traceback, say)."""


class Damaged(ValueError):
    """A file of a run whose bytes are not those that were written, or that cannot be read."""


def of_process_end(error: BaseException) -> str:
    """What the strategy or a callback did that would have ended the process: ``error`` is no Exception."""
    code = getattr(error, "code", None)
    how = f"called sys.exit({code!r})" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    return f"the strategy or a callback {how}: {error}"
