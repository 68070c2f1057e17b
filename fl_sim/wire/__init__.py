"""Trees and pools as Flower's records and messages."""
