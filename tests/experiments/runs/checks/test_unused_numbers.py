"""A number that a strategy does not use is refused where a call says it, and left out where a stored config does."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from experiments.config.recipe_files import make
from experiments.config.stored import stored_config
from experiments.run import main
from experiments.runs.checks.unused_numbers import _tried
from experiments.runs.resume import ready
from fl_sim import Local
from fl_sim.errors import ConfigError
from fl_sim.local import Draw, Sizes, Streams, passes
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.base import Strategy
from strategies.pools.max import Max
from strategies.pools.mean import Mean
from tests.experiments.config.tiny_world import __name__ as WORLD


class Largest(Strategy):
    """A pool that ignores weights."""

    @property
    def pool(self) -> Pool:
        return Max()


class Replaces(Strategy):
    """A server's step without a rate."""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return pooled


class Everyone(Strategy):
    """Messages of its own, to whoever is there."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return super().configure_train(server_round, arrays, ConfigRecord({**config, "system.stragglers": 0.0}), grid)


class Alone(Strategy):
    """An aggregation of its own, which knows replies of blocks alone."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        pooled = [reply.content.array_records["pool"] for reply in replies if "pool" in reply.content]
        return pooled[0], None


class Keeps(Strategy):
    """Stragglers' partial work is kept."""

    partial_work = "keep"


class Both(Keeps):
    """Batches of another name."""

    def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
        return {"support": passes(np.arange(sizes.train), local, draw("support"))}


class Fails(Replaces):
    """A hook that fails: the run tells why."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        raise RuntimeError("no")


def setup_of(out: Path, strategy: Any, **given: Any) -> Any:
    world = {"task": f"{WORLD}:tiny", "model": f"{WORLD}:linear", "partition": "natural", "out": str(out)}
    return ready(make(**world, strategy=strategy, **given))


@pytest.mark.parametrize(
    "strategy, given, unused",
    [
        (Largest, {"weighting": "uniform"}, "weighting = 'uniform'"),
        (Largest, {"weighting": "examples"}, "weighting = 'examples'"),
        (Replaces, {"server.lr": 0.5}, "server.lr = 0.5"),
        (Everyone, {"system.stragglers": 0.5}, "system.stragglers = 0.5"),
        (Alone, {"server.lr": 0.5}, "server.lr = 0.5"),
        (Keeps, {"system.stragglers": 0.5}, "system.stragglers = 0.5: does nothing here: each client takes one step"),
        (
            Both,
            {"system.stragglers": 0.5, "local.epochs": 2},
            "system.stragglers = 0.5: .* no stream .* 'train'",
        ),
        (Keeps, {"system.stragglers": 0.5, "local.epochs": 2}, ""),
        (Largest, {"server.lr": 0.5, "system.stragglers": 0.5}, ""),
        (Replaces, {"weighting": "uniform", "system.stragglers": 0.5}, ""),
        (Everyone, {"weighting": "uniform", "server.lr": 0.5}, ""),
        (Alone, {"weighting": "uniform"}, ""),
        (Fails, {"server.lr": 0.5}, ""),
        (Replaces, {"weighting": "uniform", "cohort": 2}, ""),
    ],
)
def test_what_a_strategy_of_a_user_s_does_not_use_is_refused(
    strategy: type[Strategy], given: dict[str, Any], unused: str, tmp_path: Path
) -> None:
    if unused:
        with pytest.raises(ConfigError, match=f"^{unused}: does nothing here: " if ":" not in unused else unused):
            setup_of(tmp_path, strategy(), **given)
    else:
        assert setup_of(tmp_path, strategy(), **given).config.strategy.name


def test_a_trial_leaves_the_strategy_and_the_generators_as_they_were(tmp_path: Path) -> None:
    strategy = Largest()
    setup, before = setup_of(tmp_path, strategy), torch.get_rng_state()
    kept = {k: repr(v) for k, v in vars(setup.strategy).items()}
    [(asked, digest), *_] = _tried(setup)
    assert len(asked) == 4 and len(digest) == 64
    assert {k: repr(v) for k, v in vars(setup.strategy).items()} == kept and vars(strategy) == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_number_that_is_used_in_later_rounds_alone_is_not_refused(tmp_path: Path) -> None:
    class Late(Strategy):
        """Takes the server's rate from round 5 on."""

        def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
            return super().server_step(model, pooled, server_round) if server_round >= 5 else pooled

    assert setup_of(tmp_path, Late(), server={"lr": 0.5}).config.server.lr == 0.5


def test_the_weights_of_a_trial_are_those_of_a_round(tmp_path: Path) -> None:
    """(1 * .1 - 3 * .3 + 2 * .7) / 6 = .1 by samples, (.1 - .3 + .7) / 3 = 1/6 by clients, .7 the largest."""

    class Moves(Strategy):
        moved = 0.0
        pool_of: Pool = Mean()

        @property
        def pool(self) -> Pool:
            return self.pool_of

        def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
            type(self).moved = float((pooled["bias"] - model["bias"]).mean())
            return pooled

    setup = setup_of(tmp_path, Moves(), dtype="float64")
    for number, given in ((0.1, {}), (1 / 6, {"weighting": "uniform"}), (0.7, {"pool_of": Max()})):
        _tried(setup, **given)
        assert Moves.moved == pytest.approx(number, abs=1e-12)


def test_maxpool_has_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weighting = 'uniform': means nothing to maxpool; leave it out"):
        make(strategy="maxpool", weighting="uniform")
    stored = {**make(strategy="maxpool").to_dict(), "weighting": "uniform"}
    assert stored_config(stored).weighting is None


def test_a_batch_of_one_run_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"--task {WORLD}:tiny --model {WORLD}:linear --system.stragglers .01 --vmap_over local.lr=.1 --out {tmp_path}"
    )
    assert main(words.split()) == 2 and not list(tmp_path.iterdir())
    assert "system.stragglers = 0.01: of 10 clients a round that is none" in capsys.readouterr().err
