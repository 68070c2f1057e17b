"""Steps of a server that change from round to round."""


def annealed(anneal: str, server_round: int, rounds: int) -> float:
    """The factor of a server's step in round t = 1..T: 1 for ``constant``, 1 - (t - 1) / T for ``linear``."""
    return 1 - (server_round - 1) / max(rounds, 1) if anneal == "linear" else 1.0
