"""Edges in levels: who belongs to whom, and what each node has after a pooling, by hand."""

from collections import Counter

import pytest
import torch

from strategies.base.edges import Edges, Levels
from strategies.pools.mean import Mean

TWO = Levels.parse("4,2", "3,2")


def w(value: float) -> dict[str, torch.Tensor]:
    """A model of one number."""
    return {"w": torch.tensor(value, dtype=torch.float64)}


def test_numbers_and_lists_from_the_lowest_level_upwards() -> None:
    assert Levels.parse(10, 5) == Levels.parse("10", "5") == Levels((10,), (5,))
    assert Levels((4, 2), (3, 6)) == TWO  # the server pools every second time that the middle level does
    assert [TWO.above(0, node) for node in range(4)] == [0, 1, 0, 1]
    assert [TWO.above(1, node) for node in range(2)] == [0, 0]


@pytest.mark.parametrize(
    "edges, every, named",
    [
        ("0", "1", "strategy.edges = '0'"),
        ("2,x", "1,1", "strategy.edges = '2,x'"),
        (2, -1, "strategy.every = -1"),
        ("2,", "1", "strategy.edges = '2,'"),
        ("4,2", "3", "strategy.edges = '4,2': 2 levels, and strategy.every = '3' has 1"),
        ("2,4", "3,2", "strategy.edges = '2,4': a level has more nodes"),
    ],
)
def test_what_is_no_hierarchy_is_refused_by_name(edges: int | str, every: int | str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Levels.parse(edges, every)


def test_clients_keep_their_edge_and_edges_differ_by_one_client_at_most() -> None:
    levels = Levels.parse(4, 1)
    mine = [levels.edge_of(0, client) for client in range(42)]
    assert max(Counter(mine).values()) - min(Counter(mine).values()) <= 1
    assert mine == [levels.edge_of(0, client) for client in range(42)]
    assert mine[:40] != [client % 4 for client in range(40)]
    assert mine != [levels.edge_of(1, client) for client in range(42)]


def test_a_middle_level_and_the_server_by_hand() -> None:
    # Nodes 0 and 2 belong to A, 1 and 3 to B. After some rounds 0 has 4 (weight 1), 2 has 8 (weight 3), 1 has 6 (weight
    # 2), 3 was silent. Pooling the lowest level: A = (4 + 24) / 4 = 7 with weight 4, B = 6 with weight 2.
    # Pooling both: the server gets (4 * 7 + 2 * 6) / 6 = 20 / 3.
    edges = Edges(TWO, w(0.0), {(0, 0): w(4.0), (0, 2): w(8.0), (0, 1): w(6.0)})
    edges.weights[0] += torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=torch.float64)

    nothing = edges.pooled(Mean(), lambda period: 5 % period == 0)
    assert (nothing.models, nothing.up, nothing.down) == (edges.models, 0, 0)

    lower = edges.pooled(Mean(), lambda period: 3 % period == 0)
    assert [float(lower.model(0, node)["w"]) for node in range(4)] == [7, 6, 7, 6]  # the silent one too
    assert [x.tolist() for x in lower.weights] == [[0, 0, 0, 0], [4, 2]]
    assert (float(lower.top["w"]), lower.up, lower.down) == (0, 3, 4)

    # Three rounds later A's nodes were silent, and node 3 has 9 with weight 6: B = 9 with weight 2 + 6.
    lower.models[0, 3] = w(9.0)
    lower.weights[0][3] = 6
    both = Edges.of(TWO, lower.state(), w(-1.0)).pooled(Mean(), lambda period: 6 % period == 0)
    assert float(both.top["w"]) == pytest.approx((4 * 7 + 8 * 9) / 12, rel=1e-15)
    assert both.state() == {}
    assert (both.up, both.down) == (1 + 2, 4 + 2)
    assert [float(lower.model(0, node)["w"]) for node in range(4)] == [7, 6, 7, 9]  # pooling changed nothing in place


def test_a_state_holds_all_of_it() -> None:
    edges = Edges(TWO, w(1.0), {(0, 3): w(2.0), (1, 1): w(3.0)})
    edges.weights[0][3], edges.weights[1][1] = 5, 7
    again = Edges.of(TWO, edges.state(), w(-1.0))
    assert (again.top, again.models) == (edges.top, edges.models)
    assert [x.tolist() for x in again.weights] == [x.tolist() for x in edges.weights]
    assert Edges.of(TWO, {}, w(4.0)).model(0, 2) == w(4.0)
