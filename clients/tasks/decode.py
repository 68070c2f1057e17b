"""``stack`` under the name by which scripts of earlier versions import it; it lives in ``clients.sources.pictures``."""

from clients.sources.pictures import stack

__all__ = ["stack"]
