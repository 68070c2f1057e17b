"""Milliseconds of a round of ``sinusoid-reptile`` (one tiny client), beside a plain PyTorch loop, in turn.

    python -m experiments.bench.sinusoid [--rounds 300] [--turns 3]

The plain loop takes the same steps (five of ten points, then the outer step) without messages, log, checks or
evaluation. Both times are medians over the rounds of all turns: wall time, and the time of the processor, which
another program on the machine hardly lengthens.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import mse_loss

from clients.models.sine_mlp import sine_mlp
from clients.tasks.sinusoid import sinusoid
from experiments.run import run
from fl_sim import Callback, Run, rng

Times = tuple[float, float]
"""Seconds: (wall, processor)."""
POINTS, BATCH, RATE, OUTER = 50, 10, 0.02, 0.1


def now() -> Times:
    """The two clocks."""
    return time.perf_counter(), time.process_time()


def between(ticks: Sequence[Times]) -> list[Times]:
    """The differences of neighbouring readings of the clocks."""
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ticks)]


class Clocks(Callback):
    """Reads the clocks after each round."""

    reads_digest = False

    def __init__(self) -> None:
        self.ticks: list[Times] = []

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        """Read them, but not after the last round, which is evaluated."""
        if run.round < run.num_rounds:
            self.ticks.append(now())


def of_the_recipe(rounds: int) -> list[Times]:
    """Each round of the recipe, on fewer waves, on the loop engine."""
    few: dict[str, Any] = {"clients": 110, "holdout_clients": 10, "rounds": rounds, "evaluate_every": rounds}
    clocks = Clocks()
    with tempfile.TemporaryDirectory() as out:
        run(recipe="sinusoid-reptile", callbacks=[clocks], engine="loop", out=out, **few)
    return between(clocks.ticks[1:])


def of_a_plain_loop(rounds: int) -> list[Times]:
    """Each round of Reptile as one writes it by hand."""
    train = sinusoid(clients=100, samples=POINTS).train
    with rng.keyed_globals(0):
        network = sine_mlp((1,), 1)
        ticks, weights = [now()], list(network.parameters())
        for number in range(1, rounds):
            first = POINTS * rng.sample(rng.key(0, "wave", number), 100, 1)[0]
            order = torch.from_numpy(first + rng.permutation(rng.key(0, "points", number), POINTS))
            before = [w.detach().clone() for w in weights]
            for rows in order.reshape(-1, BATCH):
                gradients = torch.autograd.grad(mse_loss(network(train["x"][rows]), train["y"][rows]), weights)
                with torch.no_grad():
                    for w, g in zip(weights, gradients, strict=True):
                        w.add_(g, alpha=-RATE)
            with torch.no_grad():
                for w, old in zip(weights, before, strict=True):
                    w.copy_(torch.lerp(old, w, OUTER * (1 - (number - 1) / rounds)))
            ticks.append(now())
    return between(ticks)


def medians(times: Sequence[Times]) -> list[float]:
    """Milliseconds: wall and processor."""
    return [1000 * statistics.median(clock) for clock in zip(*times, strict=True)]


def in_turn(rounds: int, turns: int) -> dict[str, list[Times]]:
    """Each system's times of rounds, measured in turn, with one thread."""
    torch.set_num_threads(1)
    systems: dict[str, Callable[[int], list[Times]]] = {
        "sinusoid-reptile": of_the_recipe,
        "plain PyTorch": of_a_plain_loop,
    }
    found: dict[str, list[Times]] = {name: [] for name in systems}
    for _ in range(turns):
        for name, measure in systems.items():
            found[name] += measure(rounds)
    return found


def table(found: Mapping[str, Sequence[Times]]) -> list[str]:
    """A Markdown table of the medians."""
    lines = ["| ms a round | wall | processor |", "|---|---|---|"]
    for name, times in found.items():
        wall, processor = medians(times)
        lines.append(f"| {name} | {wall:.2f} | {processor:.2f} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser("python -m experiments.bench.sinusoid", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="rounds of a turn (default: 300)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is run, in turn (default: 3)")
    options = parser.parse_args(argv)
    print("\n".join(table(in_turn(options.rounds, options.turns))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
