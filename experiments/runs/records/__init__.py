"""What a run keeps besides its rows: the best model, its partition."""
