"""The malicious clients of a simulation: who they are in each round, and what they send once all honest ones replied.

Legend: H honest clients of a round.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fl_sim import rng, tree
from fl_sim.blocks.attack import Attack
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import BlockPlan, plan_blocks
from fl_sim.engines import drift
from fl_sim.engines.malicious import attacked, update_of
from fl_sim.engines.reply_checks import update_norms
from fl_sim.engines.results import BlockResult
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Attackers:
    """Which clients of a round are malicious, and what they do."""

    attack: Attack
    share: float
    """Of a round's clients."""
    seed: int
    """Keys who is malicious."""

    def among(self, clients: Iterable[int]) -> frozenset[int]:
        """The malicious ones of a round's clients: exactly ``round(share * number of clients)``.

        Each client has a rank, by the key (seed, "attackers", client); those of the lowest ranks are malicious. So they
        are the same in each round in which all clients train, and for each strategy that asks the same clients.
        """
        ranked = sorted(set(clients), key=lambda client: (rng.key(self.seed, "attackers", client), client))
        return frozenset(ranked[: round(self.share * len(ranked))])

    def plans(
        self,
        malicious: frozenset[int],
        learner: Learner,
        message_type: str,
        orders: Sequence[tuple[int, int, Settings]],
        states: Mapping[int, Tree],
        block_size: int,
        first: int = 0,
    ) -> list[BlockPlan]:
        """The blocks of honest clients, then those of malicious ones; further parameters as of ``plan_blocks``."""
        honest, others = ([order for order in orders if (order[1] in malicious) is one] for one in (False, True))
        plans = plan_blocks(learner, message_type, honest, states, block_size, first)
        more = plan_blocks(learner, message_type, others, states, block_size, first + len(plans))
        return plans + [replace(plan, attack=self.attack) for plan in more]

    def colluded(self, groups: Sequence[tuple[Tree, Iterable[BlockResult]]], learner: Learner) -> Iterator[BlockResult]:
        """The results of all blocks, computed first; those of malicious clients with what ``Attack.collusion`` gives.

        ``groups``: (the model that was received, results without a pool) of each group of messages. Where no honest
        client has replied, there is nothing to send, and each malicious one has failed.
        """
        computed = [(model, list(results)) for model, results in groups]
        updates: list[Tree] = []
        names = learner.loss.trainable
        for model, results in computed:
            for result in results:
                if result.plan.attack is None and result.plan.message_type == "train":
                    rule = learner.rule(result.plan.message_type, result.plan.settings)
                    replies = ({k: c.reply[k] for k in names if k in c.reply} for c in result.clients if not c.reason)
                    updates += [update_of(reply, model, rule) for reply in replies]
        update = self.attack.collusion(tree.stack(updates)) if updates else {}
        for model, results in computed:
            for result in results:
                if result.plan.attack is not None:
                    _send(result, model, update, learner)
                yield result


def _send(result: BlockResult, model: Tree, update: Tree, learner: Learner) -> None:
    """Put what malicious clients agreed on into the results of their block, in place of what they trained."""
    rule = learner.rule(result.plan.message_type, result.plan.settings)
    result.drift = None
    for client in result.clients:
        if client.reason:
            continue
        if not update:
            client.reply, client.state, client.reason = {}, {}, "no honest client replied, from which it could attack"
            continue
        client.reply = attacked(client.reply, model, rule, {k: x for k, x in update.items() if k in client.reply})
        received = {k: model[k].to(x.device) for k, x in client.reply.items() if k in model}
        norms = update_norms(tree.stack([client.reply]), received, rule)
        client.metrics |= {k: float(x) for k, x in norms.items()}
        if learner.log_drift:
            one = tree.stack([client.reply])
            result.drift = drift.added(result.drift, one, [client.weight], model, rule, learner.loss.trainable)
