"""Values of statements: lists in one parameter, and who writes."""

import os
import socket
from collections.abc import Collection

import msgspec


def to_json(values: Collection[int] | Collection[str]) -> str:
    """Return some values as the parameter of `each_text` or `each_number`."""
    return msgspec.json.encode(sorted(values)).decode()


def this_process() -> str:
    """Return the process and host of this run, for others to read."""
    return f"process {os.getpid()} on {socket.gethostname()}"
