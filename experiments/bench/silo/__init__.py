"""Seconds of a client's training in a silo, beside one process and PyTorch's DistributedDataParallel."""
