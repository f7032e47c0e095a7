"""The graph of generations and layers: what maintainer remembers between runs."""
