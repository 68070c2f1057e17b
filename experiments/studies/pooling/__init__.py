"""Studies of pooling: every pool, a maximum's bias, exponents, hierarchies, attacks, rare labels."""
