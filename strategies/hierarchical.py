"""Hierarchical FedAvg: clients belong to edges, which pool every round; the server pools the edges every k rounds.

Liu, Zhang, Song, Letaief, "Client-Edge-Cloud Hierarchical Federated Learning", ICC 2020, arXiv:1905.06641, algorithm 1
(HierFAVG; kappa_1 is the clients' local training, kappa_2 is k).

    edge e, each round:     w_e <- w_e + server_lr * (pool_{i of e} w_i - w_e),    n_e <- n_e + sum_i n_i
    server, every k rounds: w <- pool_e w_e by n_e;   w_e <- w,   n_e <- 0   for all e

``edges`` and ``every`` may be lists from the lowest level upwards: with 20,4 and 5,2 twenty edges pool in each round,
four regions pool five edges each every 5 rounds, and the server pools the regions every 10 rounds. An edge without
replies keeps its model and weighs nothing. Evaluated is what the server would have if all levels were pooled now.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fl_sim import Pool, tree
from fl_sim.wire import records
from strategies.base import Received
from strategies.base.edges import Edges, Levels
from strategies.base.evaluation import everyone
from strategies.base.reductions import make_pool, numbers_of
from strategies.pooled import AnyPool


@dataclass
class Hierarchical(AnyPool):
    """FedAvg with edges between clients and server; with one pooling of the edges a round it is FedAvg."""

    reduction: str = "mean"
    """The pool by which edges reduce what their clients reply: a name of ``--strategy pooled``."""
    above: str = "mean"
    """The pool by which the server, and each level above the edges, reduces the models below it."""
    edges: int | str = 2
    """Number of edges; several levels from the lowest upwards as 20,4."""
    every: int | str = 2
    """Rounds between two poolings of the edges; of a level above them, poolings of the level below, as in 5,2."""
    one_reply_a_client = True
    own_columns: ClassVar = ("edge_bytes_up", "edge_bytes_down")
    edge_of = MappingProxyType(dict[int, int]())  # node id -> edge, of the round's clients

    def __post_init__(self) -> None:
        super().__post_init__()
        Levels.parse(self.edges, self.every)

    @property
    def above_pool(self) -> Pool:
        """The pool of all levels above the edges, for models."""
        return make_pool(self.above, self._numbers, getattr(self, "model", None), "strategy.above")

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """The numbers that neither pool has."""
        own = {*numbers_of(self.reduction), *numbers_of(self.above, "strategy.above")}
        return {k: f"neither pool has a number {k}" for k in self._numbers if k not in own}

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Weights of clients, where both pools ignore them."""
        return super().wrong_values if self.above_pool.ignores_weights else {}

    @property
    def least_clients(self) -> int:
        """Each edge has a client."""
        return Levels.parse(self.edges, self.every).sizes[0]

    def __getstate__(self) -> dict[str, object]:
        """Without the edges of the round's clients, which each round draws anew."""
        return {k: v for k, v in super().__getstate__().items() if k != "edge_of"}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages to a keyed sample of ``cohort`` clients, each with the model of the client's edge."""
        sent = list(super().configure_train(server_round, arrays, config, grid))
        edges, ids = self._edges(), everyone(grid)
        encoded = {id(self.model): arrays}
        contents: dict[tuple[int, int], RecordDict] = {}  # one object for equal contents: the grid reads it once
        mine: dict[int, int] = {}
        for message in sent:
            node, content = message.metadata.dst_node_id, message.content
            edge = mine[node] = edges.levels.edge_of(self.seed, bisect_left(ids, node))
            model = edges.model(0, edge)
            encoded[id(model)] = encoded.get(id(model)) or records.encode(model)
            key = id(content), id(model)
            contents[key] = contents.get(key) or RecordDict({**content, "arrays": encoded[id(model)]})
            message.content = contents[key]
        self.edge_of = MappingProxyType(mine)
        return sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Each edge's step, the poolings that are due, and the model that the server would have by now."""
        received: dict[int, Received] = {}
        for reply in replies:
            self._receive(received.setdefault(self.edge_of[reply.metadata.src_node_id], Received()), reply)
        edges, whole = self._edges(), Received()
        for edge in sorted(e for e, part in received.items() if part.partial is not None):
            part = received[edge]
            edges.models[0, edge] = self._stepped(edges.model(0, edge), part, server_round)
            edges.weights[0][edge] += part.weight
            whole.losses, whole.examples = whole.losses + part.losses, whole.examples + part.examples
            whole.codec_errors += part.codec_errors
            whole.coded_examples += part.coded_examples
        if not any(bool(w.any()) for w in edges.weights):
            return None, None
        pool = self.with_statistics(self.above_pool)
        pooled = edges.pooled(pool, lambda period: server_round % period == 0)
        self.server_state = pooled.state()
        size = tree.num_bytes(self._shared(self.model))
        begins = sum(edges.levels.sizes) if server_round == self.state_since + 1 else 0
        moved = {"edge_bytes_up": pooled.up * size, "edge_bytes_down": (pooled.down + begins) * size}
        new = pooled.pooled(pool, lambda period: True).top
        return records.encode(new), MetricRecord({**whole.metrics, **moved})

    def _edges(self) -> Edges:
        return Edges.of(Levels.parse(self.edges, self.every), self.server_state, self.model)
