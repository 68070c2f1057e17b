"""Training that is itself distributed: one client's local rule on several processes of ``torch.distributed``."""
