"""Caches in repositories of OCI registries."""
