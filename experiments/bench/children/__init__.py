"""The child processes that run the compared systems: how they are started, frozen, measured and ended; the protocol."""
