"""GitHub's Actions cache, and the self-hosted services that speak its protocols."""

from maintainer.stores.github.cache import GitHubCache
from maintainer.stores.github.retry import RetryPolicy
from maintainer.stores.github.store import GitHubStore, open_store

__all__ = ["GitHubCache", "GitHubStore", "RetryPolicy", "open_store"]
