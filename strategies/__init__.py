"""Algorithms: one file = one algorithm = its name on the command line; both halves, the server's and the client's."""
