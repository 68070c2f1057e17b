"""Who runs blocks: this process, several runs in lockstep, or Ray's workers."""
