"""The SQLite graph of manifests to layers: what maintainer remembers between runs."""
