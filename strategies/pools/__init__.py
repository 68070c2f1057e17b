"""Pools: reductions of client models or updates. One file is one pool, with one name (``--strategy.reduction NAME``).

A pool is a class derived from ``fl_sim.wire.pool.Pool`` (associative: the size of its partial does not depend on the
number of clients), or from ``strategies.pools._stack.Stack`` (its partial keeps every reply). Its constructor may take
the numbers ``p``, ``T`` and ``share`` and the global ``model`` at the round's start, each with a default. Each file
gives the formula, the paper or "no paper", and what a client's weight means to it.
"""
