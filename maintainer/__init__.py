"""A garbage collector for BuildKit's build caches."""

__version__ = "0.1.0"
