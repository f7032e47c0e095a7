"""What the fields of values mean, for the schema: the docstrings below them in the code."""

import ast
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec.inspect import StructType, type_info

_PARTS = ("type", "types", "item_type", "item_types", "key_type", "value_type")
"""Where a type holds others."""
_TAG = "What this object is: its other fields are the facts."
_IN_UTC = "In UTC, as in ISO 8601."


def describe_fields(schema: dict[str, Any], model: type[msgspec.Struct]) -> None:
    """Add the docstrings of all fields to the schema of a struct and of those that it holds."""
    for struct in dict.fromkeys(_find_structs(type_info(model), set())):
        properties = schema["$defs"][struct.__name__]["properties"]
        if tag := struct.__struct_config__.tag_field:
            properties[tag] = {"description": _TAG} | properties[tag]
        times = _times(struct)
        for name, text in _texts(struct):
            if name in properties:
                in_utc = f" {_IN_UTC}" if name in times else ""
                description = re.sub(r"\bNone\b", "null", text) + in_utc
                properties[name] = {"description": description} | properties[name]
        for name in times:
            properties[name]["format"] = "date-time"


def _texts(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """Return the docstrings of fields: those of a struct, before those of its bases."""
    for base in struct.__mro__:
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            yield from _docstrings(base.__module__).get(base.__name__, {}).items()


def _times(struct: type[msgspec.Struct]) -> set[str]:
    """Return the names of the fields that are times."""
    return {
        one.name
        for one in msgspec.structs.fields(struct)
        if datetime in (one.type, *get_args(one.type))
    }


def _find_structs(info: Any, seen: set[int]) -> Iterator[type[msgspec.Struct]]:  # noqa: ANN401
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, StructType):
        yield info.cls
        inner: list[Any] = [field.type for field in info.fields]
    else:
        parts = [getattr(info, name, ()) for name in _PARTS]
        inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    for one in inner:
        yield from _find_structs(one, seen)


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of fields in a module, by class and name."""
    tree = ast.parse(Path(str(import_module(module).__file__)).read_text(encoding="utf-8"))
    return {
        one.name: dict(_read_class(one.body)) for one in tree.body if isinstance(one, ast.ClassDef)
    }


def _read_class(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, after in pairwise(body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
