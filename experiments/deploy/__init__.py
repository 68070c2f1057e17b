"""``python -m experiments.deploy up | plan | keys``: SuperLink and SuperNodes, started here or planned for other machines."""
