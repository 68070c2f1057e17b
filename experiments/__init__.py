"""Experiments: configurations, runs and their logs, deployments and benchmarks, and the commands for them."""

from experiments.early_help import show_if_asked
from experiments.installation import refuse_foreign_packages
from experiments.starting import end_at_once, is_command

if is_command():
    end_at_once()
refuse_foreign_packages()
if is_command():
    show_if_asked()
