"""Partitions of samples over clients: one file is one partition, with one name on the command line.

A partition is a function ``(task, clients, seed, **own parameters) -> fl_sim.population.partition.Partition`` marked
``@offer("partition")``. Every client has at least one sample, and the same arguments give the same partition. Every
training sample belongs to exactly one client, unless ``Partition.exclusive`` is False. Each file names its paper.
"""
