"""Experiments: configurations, runs and their logs, deployments and benchmarks, and the commands for them."""

from experiments.installation import refuse_foreign_packages

refuse_foreign_packages()
