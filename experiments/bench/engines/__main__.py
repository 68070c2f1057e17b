"""``python -m experiments.bench.engines``: times each recipe on the engines loop and vmap, and shows what auto chooses.

A few rounds of each case of ``recipe_cases`` are trained on one engine and then on the other, without evaluation and
without silos; the processor time of a round is the median over the rounds after the first. One process, one thread.
Where vmap cannot take the network (BatchNorm), it has no time. All cases take some minutes: ``--cases "NAME;NAME"
--add`` measures some of them, and keeps the others' figures in ``--out``.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clients.silo.silo_options import Silo
from experiments import provenance
from experiments.bench import ROOT
from experiments.bench.engines.recipe_cases import CASES, META
from experiments.config.command_line import parse
from experiments.config.schema import Config
from experiments.runs.setup import Setup, build
from fl_sim import Callback, Run, run_rounds
from fl_sim.engines.results import BlockResult


class Stopwatch(Callback):
    """Processor seconds of each round, and sizes of its blocks."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.alone = self.together = 0
        """Steps of all clients, and of each block's longest client."""

    def on_run_start(self, run: Run) -> None:
        self.start = time.process_time()

    def on_round_start(self, run: Run) -> None:
        self.start = time.process_time()

    def on_block(self, run: Run, result: BlockResult) -> None:
        steps = [order.steps for order in result.plan.orders]
        self.alone, self.together = self.alone + sum(steps), self.together + max(steps)

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        self.seconds.append(time.process_time() - self.start)


def timed(setup: Setup, rounds: int) -> tuple[Stopwatch, float]:
    """(the stopwatch, the padded share) of ``rounds`` rounds of a run without evaluation."""
    watch, config = Stopwatch(), setup.config
    result = run_rounds(
        setup.strategy, setup.grid, setup.initial, rounds, train_config=setup.train_config, callbacks=[watch],
        seed=config.seed, failures="raise",
    )  # fmt: skip
    shares = [row["padded_share"] for row in result.rows[1:] if row.get("padded_share") is not None]
    setup.grid.close()
    return watch, statistics.mean(shares) if shares else 0.0


def measure(config: Config, rounds: int) -> dict[str, Any]:
    """The figures of one run on both engines."""
    short = replace(config, rounds=rounds, personalize_steps=0, target=None, silo=Silo())
    chosen = build(replace(short, engine="auto")).engine.name
    seconds: dict[str, float] = {}
    for engine in ("loop", "vmap"):
        asked = build(replace(short, engine=engine))
        if asked.engine.name == engine:  # BatchNorm's is the loop
            setup, (watch, padded) = asked, timed(asked, rounds)
            seconds[engine] = statistics.median(watch.seconds[2:])
    slower = seconds[chosen] / min(seconds.values())
    model = setup.loss.initial()
    return {
        "strategy": config.strategy.name,
        "parameters": sum(v.numel() for k, v in model.items() if k in setup.loss.trainable),
        "batch": config.local.batch_size,
        "block": setup.config.block_size,
        "padded": padded,
        "at_once": watch.alone / max(watch.together, 1),
        "steps": watch.together / rounds,
        **{f"{engine}_s": seconds.get(engine) for engine in ("loop", "vmap")},
        "auto": chosen,
        "auto_over_best": slower,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.engines", description=__doc__)
    parser.add_argument("--cases", default=";".join(CASES), help="cases by name, with semicolons between, or flags")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each run; the first is not timed")
    parser.add_argument("--out", type=Path, help="file for the figures, such as engines.json")
    parser.add_argument("--add", action="store_true", help="keep the figures of other cases in --out")
    parser.add_argument("--meta", action="store_true", help="the cases of meta-learning, instead of --cases")
    arguments = parser.parse_args(argv)
    cases = list(META) if arguments.meta else arguments.cases.split(";")
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": provenance.machine()}
    figures |= {"commit": provenance.commit(ROOT), "section": "meta" if arguments.meta else "engines", "recipes": {}}
    if arguments.add and arguments.out is not None and arguments.out.exists():
        figures["recipes"] = json.loads(arguments.out.read_text(encoding="utf-8"))["recipes"]
    for case in cases:
        figures["recipes"].pop(case, None)
        for config in parse({**CASES, **META}.get(case, case).split()).configs:
            figures["recipes"].setdefault(case, []).append(row := measure(config, arguments.rounds))
            print(json.dumps({case: row}), flush=True)
        if arguments.out is not None:  # after each case, so that a later failure loses nothing
            arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
