"""Who owns which sample: one file, one partition, one name on the command line.

A partition is a function ``(task, clients, seed, **own parameters) -> fl_sim.population.partition.Partition`` marked
``@offer("partition")``: every client has at least one sample, and the same arguments give the same partition. Every
training sample belongs to exactly one client, unless the partition says that its clients share them
(``Partition.exclusive``). No paper; each file names its own.
"""
