"""The child processes that run the compared systems: how they are started, frozen, measured, ended and spoken to."""
