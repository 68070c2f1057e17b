"""Deployments: ``python -m experiments.deploy up | plan | keys`` starts one, prints its commands, or makes its keys."""
