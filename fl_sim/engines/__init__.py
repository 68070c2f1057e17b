"""How the clients of a block are run: one after another (loop), or as one batched model (vmap)."""
