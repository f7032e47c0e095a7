"""A cache service on loopback, for demos, tests, and trying things out.

It serves one repository's Actions cache: versions 1 and 2 of the cache service, the Azure storage
behind version 2, and the REST API. Everything is kept in memory.
"""

from maintainer.emulator.faults import NO_FAULTS, Fault, FaultPlan, load_faults
from maintainer.emulator.requests import Kind, Request
from maintainer.emulator.server import Running, serve_in_thread
from maintainer.emulator.state import ActionsCache, Entry

__all__ = [
    "NO_FAULTS",
    "ActionsCache",
    "Entry",
    "Fault",
    "FaultPlan",
    "Kind",
    "Request",
    "Running",
    "load_faults",
    "serve_in_thread",
]
