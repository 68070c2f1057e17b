"""An attack: what a malicious client sends instead of its own update, as functions of trees; none is named here.

Legend: N samples of all clients, H honest clients of a round.
"""

from fl_sim.learning.rule import Draw
from fl_sim.learning.task import Task
from fl_sim.tree import Tree


class Attack:
    """What malicious clients do. A subclass overrides ``samples``, ``update`` or ``collusion``.

    The trees of ``update`` and ``collusion`` are updates: where clients reply with models, the reply minus the model
    that was received; else the reply itself (a gradient, a difference). They hold the trained leaves that travel.
    Running statistics, counters and the payload beside the model are sent as an honest client would send them, and a
    malicious client's new state is that of its training.
    """

    kind = "attack"

    def problem(self, task: Task) -> str:
        """Why this attack means nothing to a task, as the rest of a sentence; "" where it does. Asked before a run."""
        return ""

    def samples(self, samples: Tree, task: Task) -> Tree:
        """The training samples that malicious clients see: those of all clients (N, ...), not to be written into.

        Default: the true ones. Evaluations, also those on a malicious client, have the true ones.
        """
        return samples

    def update(self, own: Tree, draw: Draw) -> Tree:
        """What a malicious client sends instead of ``own``, the update that its training gave. Default: ``own``.

        Runs where the client runs. ``draw("attack-...")`` is the key of this round and client for random numbers.
        """
        return own

    def collusion(self, honest: Tree) -> Tree:
        """What every malicious client of a round sends, from the updates of the honest ones (H, ...), H >= 1.

        The simulator calls it once all honest replies are there. Default: not defined, so that each malicious client
        sends what ``update`` gives.
        """
        raise NotImplementedError

    @property
    def colludes(self) -> bool:
        """Whether ``collusion`` is defined: the attack needs all honest replies, none of them pooled."""
        return type(self).collusion is not Attack.collusion
