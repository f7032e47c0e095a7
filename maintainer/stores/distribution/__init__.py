"""A client of the protocol that registries speak, and of what belongs to it. It knows no caches."""
