"""The page of ``experiments.report``, live while runs go on."""
