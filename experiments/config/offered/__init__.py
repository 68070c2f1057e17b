"""What this project offers by name, read from its source files: for help and lists, which need no component to run."""
