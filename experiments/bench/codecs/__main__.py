"""Bytes of each codec, and seconds beside a round of S1.

    python -m experiments.bench.codecs [--clients 5] [--turns 3]

Bytes are of one client's update of LeNet (62 006 parameters) and of S1's CNN (1.6 M parameters), by each codec's closed
form. Seconds are processor time: a client's update is made from its model, coded with error feedback where that is on,
decoded and added to the model, as in a simulation; of ``--clients`` clients, multiplied to the 50 of S1. What a round's
first client pays for all, such as groups, is added once. A round of S1 is 50 clients' training on the loop. Codecs and
round take turns; medians are printed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from clients.models.cnn import cnn
from clients.models.lenet import lenet
from clients.rules import coding_for
from experiments.bench.asynchronous.cnn_overhead import cnn_update_ms
from fl_sim import rng, tree
from fl_sim.engines.coding import all_finite
from fl_sim.tree import Tree
from fl_sim.wire.codec import Coding, Keys

COHORT = 50
"""Clients of a round of S1."""
CODECS: Mapping[str, Mapping[str, object]] = {
    "topk 1 %": {"codec": "topk"},
    "topk 10 %": {"codec": "topk", "codec.share": 0.1},
    "dgc .1 %": {"codec": "dgc"},
    "grouped 4": {"codec": "grouped"},
    "grouped 16": {"codec": "grouped", "codec.k": 16},
    "powersgd 2": {"codec": "powersgd"},
    "powersgd 8": {"codec": "powersgd", "codec.rank": 8},
    "int8": {"codec": "int8"},
    "fp16": {"codec": "fp16"},
}
"""Name in the table -> settings of a message."""


def models() -> dict[str, Tree]:
    """LeNet and S1's CNN for CIFAR-10."""
    with rng.keyed_globals(0):
        networks = {"LeNet": lenet((3, 32, 32), 10), "S1's CNN": cnn((3, 32, 32), 10)}
    return {name: {k: x.detach() for k, x in network.named_parameters()} for name, network in networks.items()}


def made(settings: Mapping[str, object]) -> Coding:
    """The coding of a message with these settings."""
    coding = coding_for(settings)
    assert coding is not None
    return coding


def num_bytes(coding: Coding, model: Tree) -> int:
    """Bytes of a client's coded update."""
    return coding.num_bytes(list(model), model)


def coding_s(coding: Coding, model: Tree, clients: int) -> float:
    """Seconds of processor time in which the updates of a round of S1 are coded and read."""
    words = rng.words(rng.key(0, "bench-codecs"))
    reply = {k: x + 0.01 * (rng.uniform(words, tuple(x.shape)) - 0.5) for k, x in model.items()}
    start = time.process_time()
    state = coding.send({"": tree.sub(reply, model)}, {}, Keys(0, 0), with_code=False).state
    first = time.process_time() - start
    start = time.process_time()
    for client in range(clients):
        update = tree.sub(reply, model)
        assert all_finite(update)
        sent = coding.send({"": update}, state, Keys(0, client), with_code=False)
        assert all_finite(sent.state)
        tree.add(model, sent.reply)
    each = (time.process_time() - start) / clients
    return each * COHORT + max(0.0, first - each)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.codecs", description=__doc__)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3, help="0: bytes alone")
    given = parser.parse_args(argv)
    if given.clients < 1 or given.turns < 0:
        print(f"clients = {given.clients}, turns = {given.turns}: at least 1, and 0", file=sys.stderr)
        return 2
    codings, networks = {name: made(settings) for name, settings in CODECS.items()}, models()
    seconds: dict[str, list[float]] = {name: [] for name in codings}
    rounds = []
    for _ in range(given.turns):
        rounds.append(cnn_update_ms(False, 1) * COHORT / 1e3)
        for name, coding in codings.items():
            seconds[name].append(coding_s(coding, networks["S1's CNN"], given.clients))
    whole = {name: tree.num_bytes(model) for name, model in networks.items()}
    print(f"| codec | {' | '.join(f'{name}, bytes | part' for name in whole)} | s of 50 clients | of a round |")
    print("|---" * 7 + "|")
    print(f"| none | {' | '.join(f'{size} | 1' for size in whole.values())} | | |")
    for name, coding in codings.items():
        sizes = {k: num_bytes(coding, model) for k, model in networks.items()}
        cells = " | ".join(f"{size} | 1/{whole[k] / size:.3g}" for k, size in sizes.items())
        taken = statistics.median(seconds[name]) if rounds else 0.0
        times = f"{taken:.2f} | {taken / statistics.median(rounds):.1%}" if rounds else " | "
        print(f"| {name} | {cells} | {times} |")
    if rounds:
        print(f"\nA round of S1: {statistics.median(rounds):.2f} s of processor time ({given.turns} turns).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
