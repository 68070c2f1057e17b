"""The one place where replies are read: nothing that a client sends is used before it was checked here.

``exchange_replies`` serves every exchange, of virtual clients and of real devices; ``device_replies`` checks the fields
that only devices send: their answers to a query, and the facts that a grid acts on. What is wrong with a reply is text,
the reason of its client's failure, and never an exception. Arrays are opened by ``fl_sim.wire.array_bytes``.
"""
