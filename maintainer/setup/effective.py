"""The effective settings, and the source of each."""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ByteSize

from maintainer.database_url import public_url
from maintainer.model.limits import KeepFree
from maintainer.sanitize import printable
from maintainer.settings import (
    VARIABLES,
    Settings,
    Source,
    config_file,
    load_settings,
    read_sources,
    shown_variable,
)
from maintainer.stores.kinds import check

_DURATIONS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_TWO_DAYS = timedelta(days=2)
_SIZES = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20, "kB": 10**3, "KiB": 2**10}
_NAMES_OF_VARIABLES = ("token_env", "runtime_token_env", "app_key_env")
_TABLES = ("room", "serve", "targets")
_NOTE_COLUMN = 44


class Origin(StrEnum):
    """A kind of source, the weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


class Setting(msgspec.Struct, frozen=True):
    """One effective setting."""

    key: str
    """As in the file: `grace`, `serve.listen`."""
    value: Any
    """As a file may spell it; None if it is not set."""
    origin: Origin
    source: str
    """The file, the variable or the option; empty for a default."""


class Variable(msgspec.Struct, frozen=True):
    """One of GitHub's own variables. Its value is shown only if it is never a secret."""

    name: str
    is_set: bool
    value: str | None = None


class EffectiveSettings(msgspec.Struct, frozen=True):
    """All settings, and GitHub's own variables, as a run would find them."""

    settings: tuple[Setting, ...]
    variables: tuple[Variable, ...]


def find_effective(
    config: Path | None,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> EffectiveSettings:
    """Return what a run with these options would use. Raises UsageError."""
    settings = load_settings(config, overrides)
    check(settings)
    sources = _Sources(read_sources(config, overrides), config_file(config))
    variables = (
        Variable(name, bool(value), value or None if is_public else None)
        for name, is_public in VARIABLES.items()
        for value in [environment.get(name, "")]
    )
    return EffectiveSettings(tuple(_list(settings, sources)), tuple(variables))


class _Sources:
    """Finds the strongest source of a key."""

    def __init__(self, sources: Mapping[Source, Mapping[str, Any]], file: Path | None) -> None:
        self._sources = sources
        self._file = file

    def find(self, *path: str) -> tuple[Origin, str]:
        """Return where a key comes from."""
        if _contains(self._sources["command line"], path):
            return Origin.COMMAND_LINE, f"--{path[-1].replace('_', '-')}"
        if _contains(self._sources["environment"], path):
            return Origin.ENVIRONMENT, f"MAINTAINER_{path[0].upper()}"
        if _contains(self._sources["file"], path):
            return Origin.FILE, str(self._file)
        return Origin.DEFAULT, ""


def _contains(values: Any, path: tuple[str, ...]) -> bool:  # noqa: ANN401 - a tree of any values
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def _list(settings: Settings, sources: _Sources) -> Iterator[Setting]:
    for key in Settings.model_fields:
        value = getattr(settings, key)
        if key in _TABLES and isinstance(value, BaseModel):
            for inner in type(value).model_fields:
                shown = spell(getattr(value, inner))
                yield Setting(f"{key}.{inner}", shown, *sources.find(key, inner))
        else:
            # A URL may contain a password.
            shown = public_url(value) if key == "database" else spell(value)
            yield Setting(key, shown, *sources.find(key))


def spell(value: Any) -> Any:  # noqa: ANN401
    """Return a value as a file spells it."""
    match value:
        case timedelta():
            return _spell_duration(value)
        case KeepFree(share=share, size=size):
            return _spell_size(size) if size else f"{share * 100:g}%"
        case ByteSize():
            return _spell_size(value)
        case BaseModel():
            return {key: _spell_field(key, getattr(value, key)) for key in _set_in(value)}
        case tuple():
            return [spell(one) for one in value]
    return value


def _set_in(table: BaseModel) -> list[str]:
    """Return the keys of a table that are set, in the order of the documentation."""
    return [key for key in type(table).model_fields if key in table.model_fields_set]


def _spell_field(key: str, value: Any) -> Any:  # noqa: ANN401
    return shown_variable(value, key) if key in _NAMES_OF_VARIABLES and value else spell(value)


def _spell_duration(duration: timedelta) -> str:
    parts, rest = "", duration
    for unit, length in _DURATIONS.items():
        if unit == "d" and duration < _TWO_DAYS:
            continue  # 24h, as in the documentation
        number, rest = divmod(rest, length)
        parts += f"{number}{unit}" if number else ""
    seconds = int(rest.total_seconds())
    return f"{parts}{seconds}s" if seconds or not parts else parts


def _spell_size(size: int) -> str:
    for unit, length in _SIZES.items():
        if size >= length and not size % length:
            return f"{size // length}{unit}"
    return f"{size}B"


def format_effective(found: EffectiveSettings) -> Iterator[str]:
    """Format settings as lines of a file that sets the same, each with its source."""
    table = ""
    for one in found.settings:
        before, dot, key = one.key.partition(".")
        if dot and before != table:
            table = before
            yield ""
            yield f"[{table}]"
        rows = one.value if isinstance(one.value, list) else []
        if one.key in ("targets", "discover", "room.rules"):
            for row in rows:
                yield ""
                yield _with_note(f"[[{one.key}]]", one)
                yield from (f"{name} = {_toml(value)}" for name, value in row.items())
        elif one.value is None:
            yield _with_note(f"#{key or before} =", one)
        else:
            yield _with_note(f"{key or before} = {_toml(one.value)}", one)
    yield ""
    yield "# GitHub's own variables. Secrets are never shown."
    for variable in found.variables:
        state = variable.value or ("set" if variable.is_set else "not set")
        yield f"# {variable.name}: {printable(state)}"


def _with_note(line: str, setting: Setting) -> str:
    note = setting.source or ("not set" if setting.value is None else "default")
    return f"{line:<{_NOTE_COLUMN}} # {printable(note)}"


def _toml(value: Any) -> str:  # noqa: ANN401
    """Format a value of a file: JSON's strings and numbers are also TOML's."""
    match value:
        case dict():
            pairs = (f"{key} = {_toml(one)}" for key, one in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
