"""Advice at the end of a client's traceback, for failures whose cure is a setting."""

from fl_sim.blocks.resolve import Job
from fl_sim.learning.settings import Local

ONE_VALUE = "Expected more than 1 value per channel when training"
"""How PyTorch's BatchNorm refuses a batch of one sample."""

OWN_BATCH = (
    "a network with track_running_stats=False normalises by the batch in evaluation too, which a single sample does "
    "not allow; leave track_running_stats=True, or evaluate on another number of samples"
)


def with_advice(trace: str, job: Job, local: Local) -> str:
    """``trace``, the traceback of a client that raised, with a last line that names the setting to change, if any."""
    single = {name for name, stream in job.streams.items() if any(len(batch) == 1 for batch in stream)}
    if ONE_VALUE not in trace or not single:
        return trace
    if single == {"test"}:  # the held-out samples of a personal evaluation, in evaluation mode
        return f"{trace.rstrip()}\n{OWN_BATCH}"
    n, size, kept = job.sizes.train, local.batch_size, f"local.last_batch = {local.last_batch!r}"
    if n == 1 or (size and local.last_batch != "keep" and size != 1):
        what, cure = f"a batch of one sample, from a client with {n} for training", "give it more samples"
    elif size == 1:
        what, cure = "local.batch_size = 1", "choose at least 2"
    else:
        what = f"{kept}: of {n} samples in batches of {size}, one is left for the last batch"
        cure = "choose drop (leave it out) or join (add it to the batch before)"
    instead = "or use a network with GroupNorm instead of BatchNorm, which cannot train on one sample"
    return f"{trace.rstrip()}\n{what}; {cure}, {instead}"
