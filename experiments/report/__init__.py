"""One page that shows runs: curves, tables, settings, partitions, failures. ``experiments.watch`` shows it live."""
