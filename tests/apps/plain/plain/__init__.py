"""plain: a Flower app."""
