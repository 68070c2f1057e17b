"""Device profiles: one file is one profile, with one name on the command line (``--profile NAME``).

A profile is a function ``(**own parameters) -> draw`` marked ``@offer("profile")``: ``draw`` gives the slowness and
the speed class of devices, from keys alone (``Draw`` and ``Drawn`` in ``fl_sim.population.devices``). What all profiles
share (seconds a step, bandwidths, latency, vanishing, spells) are parameters of each: ``fl_sim.population.devices``.
"""
