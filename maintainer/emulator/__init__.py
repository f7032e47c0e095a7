"""A cache service on loopback, for demos, tests, and trying things out.

It serves one repository's Actions cache: versions 1 and 2 of the cache service, the Azure storage
behind version 2, and the REST API. Everything is kept in memory.
"""

from maintainer.emulator.requests import Kind, Request
from maintainer.emulator.server import Running, serve_in_thread
from maintainer.emulator.state import ActionsCache, Entry

__all__ = ["ActionsCache", "Entry", "Kind", "Request", "Running", "serve_in_thread"]
