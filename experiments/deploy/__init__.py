"""Deployments: ``python -m experiments.deploy up | plan | keys`` starts them, or prints how to."""
