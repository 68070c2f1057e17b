"""Contract checks of strategies, tasks, partitions and models, for ``python -m experiments.check FILE`` and tests."""

from experiments.check.check_result import Result, results, run_check
from experiments.check.component_checks import MODEL_CHECKS, PARTITION_CHECKS
from experiments.check.strategy_checks import CHECKS, FLOWER_CHECKS, RAY_CHECKS
from experiments.check.targets import OF_KIND, Target, offers, targets_of, variants
from experiments.check.task_checks import TASK_CHECKS

__all__ = [
    "CHECKS",
    "FLOWER_CHECKS",
    "MODEL_CHECKS",
    "OF_KIND",
    "PARTITION_CHECKS",
    "RAY_CHECKS",
    "TASK_CHECKS",
    "Result",
    "Target",
    "offers",
    "results",
    "run_check",
    "targets_of",
    "variants",
]
