"""Where caches live: one small protocol, and what speaks it."""

from maintainer.stores.base import (
    Access,
    Found,
    Listing,
    RequestLog,
    Store,
    StoredEntry,
    StoreLimits,
)

__all__ = ["Access", "Found", "Listing", "RequestLog", "Store", "StoreLimits", "StoredEntry"]
