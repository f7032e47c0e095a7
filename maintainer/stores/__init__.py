"""Where caches are: one small protocol, and its implementations."""
