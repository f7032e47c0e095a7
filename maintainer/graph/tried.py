"""What runs have found out by trying that a store can do: they need not try it each time."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from maintainer.decoding import decode_json
from maintainer.graph.tables import TARGET

_Tried = dict[str, datetime]


def load_tried(connection: Connection, target_id: int) -> _Tried:
    """Return what was found out, and when."""
    text = connection.scalar(_LOAD, {"target": target_id})
    try:
        return decode_json(text or "{}", _Tried)
    except msgspec.MsgspecError:
        return {}  # It is tried anew.


def save_tried(connection: Connection, target_id: int, tried: Mapping[str, datetime]) -> None:
    """Record it, unless it is recorded."""
    if load_tried(connection, target_id) != tried:
        text = msgspec.json.encode(tried).decode()
        connection.execute(_SAVE, {"target": target_id, "text": text})


_here = TARGET.c.id == bindparam("target")
_LOAD = select(TARGET.c.tried).where(_here)
_SAVE = update(TARGET).where(_here).values(tried=bindparam("text"))
