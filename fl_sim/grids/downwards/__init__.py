"""What goes from the server to clients where models are not sent whole."""
