"""Where caches live: one small protocol, and what speaks it."""

from maintainer.stores.base import Access, Found, Listing, Store, StoredEntry

__all__ = ["Access", "Found", "Listing", "Store", "StoredEntry"]
