"""Stores of caches: one small protocol, and its implementations."""
