"""Flower's wrappers for differential privacy through ``run_rounds``: clipping computed by hand, reproducible noise."""

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedProx,
)

from experiments.check.world import TRAINING, app_of, trained, world
from fl_sim import SimulationGrid, run_rounds, tree
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies import fedavg
from tests.fl_sim.rounds.global_generators import draw_from_all

ALL = {"fraction_train": 1.0, "fraction_evaluate": 0.0}


def client_updates(strategy: fedavg.FedAvg, blocks: int) -> tuple[Tree, list[Tree], list[int]]:
    """The initial model, each client's model after round 1, its examples: from a grid that does not pool."""
    grid = SimulationGrid(app_of(strategy), 3, block_size=blocks)
    initial = records.encode(world()[0].initial())
    messages = strategy.configure_train(1, initial, records.config({**TRAINING, "system.stragglers": 0.0}), grid)
    replies = list(grid.send_and_receive(messages))
    models = [records.decode(reply.content["arrays"]) for reply in replies]
    return records.decode(initial), models, [int(reply.content["metrics"]["num-examples"]) for reply in replies]


def clipped_mean(start: Tree, models: list[Tree], examples: list[int], norm: float) -> Tree:
    """By hand: sum_k n_k (w + d_k min(1, norm / |d_k|)) / sum_k n_k, with d_k the update of client k."""
    total = {k: torch.zeros_like(v) for k, v in start.items()}
    for model, n in zip(models, examples, strict=True):
        delta = {k: model[k] - start[k] for k in start}
        factor = min(1.0, norm / float(sum((d**2).sum() for d in delta.values()) ** 0.5))
        total = {k: total[k] + n * (start[k] + factor * delta[k]) for k in start}
    return {k: v / sum(examples) for k, v in total.items()}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_wrapper_around_our_fedavg_clips_every_client_of_a_block(engine: str) -> None:
    start, models, examples = client_updates(fedavg.FedAvg(), blocks=3)
    norms = [float(tree.norm(tree.sub(model, start))) for model in models]
    norm = sorted(norms)[1] * 0.9  # clips two of the three
    wrapper = DifferentialPrivacyServerSideFixedClipping(
        fedavg.FedAvg(), noise_multiplier=0.0, clipping_norm=norm, num_sampled_clients=3
    )
    grid = SimulationGrid(app_of(fedavg.FedAvg()), 3, engine=engine, block_size=3)
    settings = records.config({**TRAINING, "system.stragglers": 0.0})
    result = run_rounds(wrapper, grid, records.encode(start), 1, train_config=settings)
    for k, expected in clipped_mean(start, models, examples, norm).items():
        torch.testing.assert_close(records.decode(result.arrays)[k], expected, rtol=1e-9, atol=1e-12)
    assert sum(n > norm for n in norms) == 2 and grid.pool is None


def test_the_noise_of_a_wrapper_is_reproducible_and_of_its_size() -> None:
    def noisy(multiplier: float) -> Tree:
        wrapper = DifferentialPrivacyServerSideAdaptiveClipping(
            fedavg.FedAvg(), multiplier, 3, clipped_count_stddev=5.0
        )
        grid = SimulationGrid(app_of(fedavg.FedAvg()), 3)
        settings = records.config({**TRAINING, "system.stragglers": 0.0})
        return records.decode(
            run_rounds(wrapper, grid, records.encode(world()[0].initial()), 2, train_config=settings).arrays
        )

    draw_from_all()
    once = noisy(0.1)
    draw_from_all()
    assert tree.digest(once) == tree.digest(noisy(0.1)) != tree.digest(noisy(0.0))


def test_client_side_clipping_needs_the_mod_and_works_with_it() -> None:
    start, models, examples = client_updates(fedavg.FedAvg(), blocks=3)
    norm = 0.5 * min(float(tree.norm(tree.sub(model, start))) for model in models)
    inner = app_of(fedavg.FedAvg())
    app = ClientApp(mods=[fixedclipping_mod])

    @app.train(mods=[fixedclipping_mod])
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    def wrapped(client_app: ClientApp) -> ArrayRecord:
        wrapper = DifferentialPrivacyClientSideFixedClipping(fedavg.FedAvg(), 0.0, norm, 3)
        grid, settings = SimulationGrid(client_app, 3), records.config({**TRAINING, "system.stragglers": 0.0})
        return run_rounds(wrapper, grid, records.encode(start), 1, train_config=settings).arrays

    for k, expected in clipped_mean(start, models, examples, norm).items():
        torch.testing.assert_close(records.decode(wrapped(app))[k], expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="clipping_norm.*fixedclipping_mod"):
        wrapped(inner)
    with pytest.raises(ValueError, match="proximal-mu.*--strategy fedprox"):
        trained(FedProx(**ALL, proximal_mu=0.1))
