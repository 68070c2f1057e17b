"""The silo that a run's settings describe."""

from dataclasses import replace

from clients.silo.many_processes import ManyProcesses
from clients.silo.one_process import OneProcess
from clients.silo.silo_options import Silo
from fl_sim.blocks.learner import Learner


def in_silo(learner: Learner, silo: Silo) -> Learner:
    """The learner, whose clients train in a silo where ``silo.processes`` is not 0; nothing is started."""
    if not silo.processes:
        return learner
    silo.check_device(learner.loss.device)
    alone = silo.processes == 1 and silo.backend == "auto"
    return replace(learner, silo=OneProcess(silo.shards) if alone else ManyProcesses(silo))
