"""Which clients train in a round, and which of them are stragglers: keyed draws, the same for every strategy."""

from collections.abc import Mapping, Sequence
from typing import Any

from fl_sim import rng


def choose(num_clients: int, cohort: int, seed: int, server_round: int) -> list[int]:
    """The positions of the round's clients in 0..num_clients-1, ascending: ``cohort`` of them, or all where it is 0.

    Uniform without replacement, from the key (seed, "cohort", round).
    """
    count = min(cohort or num_clients, num_clients)
    return sorted(rng.sample(rng.key(seed, "cohort", server_round), num_clients, count))


def stragglers(chosen: Sequence[int], seed: int, server_round: int, settings: Mapping[str, Any]) -> dict[int, float]:
    """Client -> the share of its work that it finishes, for a share ``system.stragglers`` of the clients chosen.

    The work is j / E with j uniform in 1 .. E - 1 for E epochs or steps (Li et al. 2020, section 5.2); in twentieths
    where E is 1. The draws depend on seed, round and client alone. At least one client is no straggler.
    """
    count = min(round(float(settings.get("system.stragglers", 0.0)) * len(chosen)), len(chosen) - 1)
    if count <= 0:
        return {}
    full = int(settings.get("local.steps", 0) or settings.get("local.epochs", 1))
    parts = full if full > 1 else 20
    keys = {c: rng.key(seed, "straggler", server_round, c) for c in chosen}
    slow = sorted(chosen, key=lambda c: keys[c])[:count]
    return {c: (1 + rng.key(keys[c], "work") % (parts - 1)) / parts for c in slow}
