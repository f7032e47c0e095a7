"""Where caches live: one small protocol, and what speaks it."""
