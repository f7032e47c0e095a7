"""Lists of values in statements, whatever their number: one parameter holds them, as JSON."""

from collections.abc import Collection

import msgspec
from sqlalchemy import BindParameter, Select, bindparam, func, select


def to_json(values: Collection[int] | Collection[str]) -> str:
    """Return some values as the parameter of `each`."""
    return msgspec.json.encode(sorted(values)).decode()


def each(name: str) -> Select[int]:
    """Select the values of a parameter."""
    return _select(bindparam(name))


def each_of(values: Collection[int] | Collection[str]) -> Select[int]:
    """Select some values."""
    return _select(bindparam("values", to_json(values), unique=True))


def _select(parameter: BindParameter[str]) -> Select[int]:
    return select(func.json_each(parameter).table_valued("value").c.value)
