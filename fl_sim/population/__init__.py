"""Who the clients are, and which samples they own."""
