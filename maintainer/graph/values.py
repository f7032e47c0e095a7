"""Values of statements, whatever their number: lists in one parameter, and many rows at once."""

import os
import socket
from collections.abc import Collection, Iterable, Mapping

import msgspec
from sqlalchemy import Connection, Delete, Insert, Update

from maintainer.graph.dialect import ROWS_AT_ONCE
from maintainer.model.entry import in_batches


def to_json(values: Collection[int] | Collection[str]) -> str:
    """Return some values as the parameter of `each_text` or `each_number`."""
    return msgspec.json.encode(sorted(values)).decode()


def execute_each(
    connection: Connection,
    statement: Insert | Update | Delete,
    rows: Iterable[Mapping[str, object]],
) -> None:
    """Execute a statement for each of some rows, if there are any."""
    for some in in_batches(rows, ROWS_AT_ONCE):
        connection.execute(statement, some)


def this_process() -> str:
    """Return the process and host of this run, for others to read."""
    return f"process {os.getpid()} on {socket.gethostname()}"
