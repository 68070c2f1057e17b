"""The contract of strategies as checks, which raise AssertionError with a reason.

Each takes a function that builds the strategy. ``python -m experiments.check FILE`` runs them on a user's own file,
``tests/conformance/test_strategies.py`` on all strategies of this project. They use the data of
``experiments.check.world`` in float64, so that equal up to rounding means 1e-9.
"""

import functools
import math
import pickle
from collections.abc import Callable

import torch
from flwr.app import ConfigRecord, Context, RecordDict

from clients.rules import rule_for
from experiments.check.comparisons import CLOSE, assert_close, assert_same_run
from experiments.check.local_update_check import check_local_update_is_pure
from experiments.check.state_check import check_each_client_gets_its_own_state
from experiments.check.world import (
    PERSONAL,
    ROUNDS,
    SIZES,
    TRAINING,
    UNSEEN,
    Make,
    Reversed,
    Wrapped,
    app_of,
    plain,
    trained,
    world,
)
from fl_sim import SimulationGrid, rng, tree
from fl_sim.blocks.learner import Learner
from fl_sim.executors.base import Executor
from fl_sim.executors.ray.options import Ray
from fl_sim.grids.messages import client_of
from fl_sim.learning.networks import home_leaves
from fl_sim.logs.round_columns import repeatable
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.pool import Pool
from strategies.base.naming import name_of
from strategies.base.strategy import Strategy

# Checks of any Flower strategy ---------------------------------------------------------------------------------------


def check_model_stays_finite(make: Make) -> None:
    """Three rounds change the model, keep its names, shapes and dtypes, and leave no NaN or infinity in it.

    Leaves that stay with the clients do not change in the global model; where all do, nothing does.
    """
    initial, run, strategy = world()[0].initial(), plain(make), make()
    home = home_leaves.names_of(strategy, world()[0]) if isinstance(strategy, Strategy) else ()
    assert set(run.model) == set(initial), f"the model's names changed: {sorted(set(run.model) ^ set(initial))}"
    for name, x in initial.items():
        new = run.model[name]
        assert (new.shape, new.dtype) == (x.shape, x.dtype), (
            f"{name} was {tuple(x.shape)} {x.dtype}, is {tuple(new.shape)} {new.dtype}"
        )
        assert bool(torch.isfinite(new).all()), f"{name} holds NaN or infinity"
    kept, shared = ({k: x for k, x in initial.items() if (k in home) == is_home} for is_home in (True, False))
    assert tree.digest({k: run.model[k] for k in kept}) == tree.digest(kept), f"{home} changed in the global model"
    changed = tree.digest({k: run.model[k] for k in shared}) != tree.digest(shared)
    assert changed or not shared, "three rounds did not change the model"


def check_same_digest_twice(make: Make) -> None:
    """Two runs with one seed give the same bits: no global generator is used, nothing is kept of an earlier run."""
    assert tree.digest(trained(make(), personal=True).model) == tree.digest(plain(make).model), (
        "two runs with one seed differ"
    )


def check_pickles(make: Make) -> None:
    """The strategy survives pickling, by which it travels to worker processes."""
    strategy = make()
    copy = pickle.loads(pickle.dumps(strategy))
    assert type(copy) is type(strategy), f"came back as {type(copy).__name__}"
    if isinstance(strategy, Strategy):
        assert copy.parameters() == strategy.parameters(), f"{strategy.parameters()} came back as {copy.parameters()}"


def check_block_size_does_not_matter(make: Make) -> None:
    """Blocks of one client and of all clients give the model of blocks of 4, up to rounding."""
    for size in (1, 16):
        assert_same_run(plain(make), trained(make(), block_size=size), f"block_size {size} against 4")


def check_order_of_replies_does_not_matter(make: Make) -> None:
    """Replies that arrive in the opposite order give the same model, up to rounding."""
    assert_same_run(plain(make), trained(make(), block_size=2, grid=Reversed), "replies reversed")


# Checks of strategies with both halves -------------------------------------------------------------------------------


def check_parameters_travel(make: Make) -> None:
    """The constructor's parameters fit into a message, and a client builds the same strategy from them."""
    strategy = make()
    sent = {f"strategy.{k}": v for k, v in strategy.parameters().items()}
    try:
        message = RecordDict({"config": ConfigRecord({**sent, "strategy": name_of(type(strategy))})})
    except (TypeError, ValueError) as error:
        raise AssertionError(f"parameters() = {strategy.parameters()} do not fit into a message: {error}") from error
    rule = rule_for("train", dict(message.config_records["config"]), {name_of(type(strategy)): type(strategy)})
    assert isinstance(rule, type(strategy)), (
        f"a client finds {type(rule).__name__} by the name {name_of(type(strategy))!r}"
    )
    assert rule.parameters() == strategy.parameters(), f"sent {strategy.parameters()}, arrived {rule.parameters()}"


def check_loop_and_vmap_agree(make: Make) -> None:
    """Training a block as one batched model gives the model of the loop engine, and does not fall back to the loop."""
    batched = plain(make, "vmap")
    assert not batched.notes, f"vmap cannot run local_update: {batched.notes[0]}"
    assert_same_run(plain(make), batched, "vmap against loop")


def check_chunk_does_not_matter(make: Make) -> None:
    """vmap over 3 clients of a block at a time gives the same model, up to rounding."""
    assert_same_run(plain(make), trained(make(), "vmap", block_size=8, chunk=3), "chunk 3 against loop")


def check_pooling_place_does_not_matter(make: Make) -> None:
    """Replies pooled by block, or one reply a client (inside Flower's wrappers): the same model, up to rounding."""
    assert_same_run(plain(make), trained(Wrapped(make())), "one reply a client against pooled blocks")


def check_pool_is_associative(make: Make) -> None:
    """Any grouping and order of ``merge`` gives the same, also with nothing added; integer leaves keep their dtype."""
    pool: Pool = make().pool
    draw = rng.generator(rng.key(0, "contract-pool"))
    like: Tree = {
        "w": torch.zeros(4, 3, dtype=torch.float64),
        "b": torch.zeros(3),
        "counter": torch.zeros((), dtype=torch.int64),
    }
    replies = [
        {k: torch.from_numpy(draw.normal(size=x.shape)).to(x.dtype) if x.ndim else x + 7 for k, x in like.items()}
        for _ in range(5)
    ]
    weights = torch.arange(1, 6, dtype=torch.float64)

    def part(*chosen: int) -> Tree:
        return pool.add(pool.start(like), tree.stack(replies[c] for c in chosen), weights[list(chosen)])

    whole: Tree = pool.finish(part(0, 1, 2, 3, 4), like)
    for name, x in like.items():
        assert (whole[name].shape, whole[name].dtype) == (x.shape, x.dtype), (
            f"pool.finish: {name} is {tuple(whole[name].shape)} {whole[name].dtype}"
        )
    groupings: dict[str, Callable[[], Tree]] = {
        "(a + b) + c": lambda: pool.merge(pool.merge(part(0, 1), part(2)), part(3, 4)),
        "a + (b + c)": lambda: pool.merge(part(0, 1), pool.merge(part(2), part(3, 4))),
        "c + b + a": lambda: pool.merge(pool.merge(part(4, 3), part(2)), part(1, 0)),
        "one client at a time": lambda: functools.reduce(pool.merge, [part(c) for c in range(5)]),
        "add after add": lambda: pool.add(part(0, 1, 2), tree.stack(replies[3:]), weights[3:]),
        "nothing + all": lambda: pool.merge(pool.start(like), part(0, 1, 2, 3, 4)),
        "all + nothing": lambda: pool.merge(part(0, 1, 2, 3, 4), pool.start(like)),
    }
    for name, grouped in groupings.items():
        other = pool.finish(grouped(), like)
        for key, x in whole.items():
            atol = CLOSE if x.dtype == torch.float64 else 1e-5
            assert torch.allclose(x, other[key], rtol=0, atol=atol), (
                f"pool: {name} differs in {key}: {other[key].tolist()}, must be {x.tolist()}"
            )


def check_app_answers_as_the_grid(make: Make) -> None:
    """The ClientApp called with one message, as on a device, replies with the same bits as in simulation."""
    strategy, (loss, _) = make(), world()
    app = app_of(strategy)
    grid = SimulationGrid(app, len(SIZES), holdout_clients=UNSEEN, block_size=4)
    arrays, evaluation = records.encode(loss.initial()), records.config(PERSONAL)
    sent = [*strategy.configure_train(1, arrays, records.config(TRAINING), grid)]
    sent += strategy.configure_evaluate(ROUNDS, arrays, evaluation, grid)
    assert sent, "configure_train sends no message"
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.send_and_receive(sent)}
    for message in sent:
        context = Context(1, message.metadata.dst_node_id, {"partition-id": client_of(message)}, RecordDict(), {})
        own, reply = app(message, context), replies[message.metadata.message_id]
        for name, answer in (("simulation", reply), ("device", own)):
            assert not answer.has_error(), f"client {client_of(message)} fails in {name}: {answer.error.reason}"
        there, here = (records.merged(m.content.metric_records.values()) for m in (own, reply))
        assert there == here, f"client {client_of(message)}: metrics on a device {there}, in simulation {here}"
        bits = [[tree.digest(records.decode(r)) for r in m.content.array_records.values()] for m in (own, reply)]
        assert bits[0] == bits[1], (
            f"client {client_of(message)}: the reply's arrays on a device are not those in simulation"
        )


def check_personal_evaluation(make: Make) -> None:
    """Fine-tuning gives finite numbers for seen and unseen clients, equal on loop and vmap, and changes no model."""
    rows = [plain(make).result.rows[-1], plain(make, "vmap").result.rows[-1]]
    names = [name for name in rows[0] if name.startswith(("personal_", "unseen_"))]
    partition = world()[1]
    has_test_samples = [partition.sizes(c)[1] > 0 for c in range(len(partition))]  # the others are not counted
    for name, count in (
        ("personal_clients", sum(has_test_samples[:-UNSEEN])),
        ("unseen_clients", sum(has_test_samples[-UNSEEN:])),
    ):
        assert rows[0].get(name) == count, f"{name} = {rows[0].get(name)}, must be {count}"
    for name in names:
        a, b = rows[0][name], rows[1].get(name, math.nan)
        assert math.isfinite(a) and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9), (
            f"{name} = {a} on the loop, {b} on vmap"
        )
    assert_close(plain(make).model, trained(make()).model, "the model trained with personal evaluation against without")


def check_ray_gives_the_same_bits(make: Make) -> None:
    """On two Ray workers the model and all numbers have the same bits as in one process, for loop and vmap."""
    from fl_sim.executors.ray.executor import RayExecutor  # imported here, because the other checks need no Ray

    def workers(learner: Learner, engine: str, chunk: int) -> Executor:
        return RayExecutor(learner, engine, chunk, Ray(num_workers=2), 1)

    for engine in ("loop", "vmap"):
        there = trained(make(), engine, personal=True, executor=workers)
        here = plain(make, engine)
        assert tree.digest(there.model) == tree.digest(here.model), (
            f"on ray, {engine} gives another model than in one process"
        )
        assert_same_run(here, there, f"on ray, {engine} against one process")
        rows = [[repeatable(row) for row in run.result.rows] for run in (here, there)]
        assert rows[0] == rows[1], f"on ray, {engine} gives other numbers than in one process"


FLOWER_CHECKS: list[Callable[[Make], None]] = [
    check_model_stays_finite,
    check_same_digest_twice,
    check_pickles,
    check_block_size_does_not_matter,
]
"""For strategies of Flower's, which have a server half only: their clients train by plain SGD."""
CHECKS: list[Callable[[Make], None]] = [
    *FLOWER_CHECKS,
    check_order_of_replies_does_not_matter,
    check_parameters_travel,
    check_loop_and_vmap_agree,
    check_chunk_does_not_matter,
    check_pooling_place_does_not_matter,
    check_local_update_is_pure,
    check_each_client_gets_its_own_state,
    check_pool_is_associative,
    check_app_answers_as_the_grid,
    check_personal_evaluation,
]
"""For strategies with both halves, subclasses of ``strategies.base.strategy.Strategy``."""
RAY_CHECKS: list[Callable[[Make], None]] = [check_ray_gives_the_same_bits]
"""For all strategies; separate because they start Ray, which takes seconds."""
