"""What is wrong with a setting, in one line that names the key and never the value."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from maintainer.database_url import PREFIX
from maintainer.errors import SettingError, UsageError
from maintainer.sanitize import printable
from maintainer.settings.common import Settings
from maintainer.settings.tables import RoomSettings, RuleSettings, ServeSettings
from maintainer.settings.targets import DiscoverSettings, TargetSettings
from maintainer.validation import explain


def explained(
    error: ValidationError,
    path: Path | None,
    environment: Mapping[str, Any] | None = None,
    file: Mapping[str, Any] | None = None,
) -> UsageError:
    """Return the first problem as an error, without the value: it may be a secret.

    `environment` is what our own variables set, and `file` what the file at `path` does, without
    what the command line sets.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    place = problem["loc"]
    variable = f"{PREFIX}{place[0]}".upper() if _is_set(environment or {}, place) else ""
    if problem["type"] == "extra_forbidden":
        unknown = ".".join(map(str, place))
        advice = _advise(place)
        return UsageError(f"{variable or path or 'environment'}: unknown key {unknown!r}{advice}")
    is_missing = problem["type"] == "missing"
    in_file = _is_set(file or {}, place[:-1] if is_missing else place)
    name = name_setting(key := _format_key(place), variable or (str(path) if in_file else ""))
    if is_missing:
        return UsageError(f"{name} is missing")
    return SettingError(key, explain(problem), name=name)


def unknown_variable(variable: str) -> UsageError:
    """Return the error for one of our own variables that sets nothing."""
    name = variable[len(PREFIX) :].lower()
    for table in ("room", "serve"):
        name = name.removeprefix(f"{table}_").removeprefix("_")
    meant = _find_similar((name,))
    if not meant:
        advice = ""
    elif meant in Settings.model_fields:
        advice = f": did you mean {PREFIX}{meant.upper()}?"
    else:
        advice = f": set {meant} in a configuration file"
    return UsageError(f"environment: {variable} is not a setting{advice}")


def name_setting(key: str, origin: str) -> str:
    """Return what messages call a setting: with the variable or the file that sets it, if any."""
    return f"setting {key} (from {printable(origin)})" if origin else f"setting {key}"


def _is_set(source: Mapping[str, Any], place: Sequence[int | str]) -> bool:
    """Whether a source sets what is at a place, or a value that it would be a part of."""
    value: Any = source
    for key in place:
        if not isinstance(value, Mapping):
            break
        if key not in value:
            return False
        value = value[key]
    return bool(place)


_TABLES: Mapping[str, type[BaseModel]] = {
    "": Settings,
    "serve": ServeSettings,
    "room": RoomSettings,
    "room.rules": RuleSettings,
    "targets": TargetSettings,
    "discover": DiscoverSettings,
}


_OF_ONE_RUN = frozenset({"accept_loss", "dry_run", "no_sweep", "repair"})
"""Options of `maintainer gc` that are not settings: each holds for one run."""


def _advise(path: Sequence[int | str]) -> str:
    """Return what to do about an unknown key, if anybody knows."""
    key = str(path[-1])
    if key in _OF_ONE_RUN:
        return f": it is an option of one run, `maintainer gc --{key.replace('_', '-')}`"
    meant = _find_similar(path)
    return f": did you mean {meant}?" if meant else ""


def _find_similar(path: Sequence[int | str]) -> str:
    """Return the key that was meant instead of an unknown one, and where it belongs, if any."""
    *tables, unknown = (str(key) for key in path if isinstance(key, str))
    here = ".".join(tables)
    if tables[:1] in (["targets"], ["discover"]) and len(tables) > 1:
        here = ".".join(tables[1:])  # The `room` of a target has the keys of the other.
    if here in _TABLES and (found := _closest(unknown, _TABLES[here].model_fields)):
        return found
    found = _closest(unknown, {key for one in _TABLES.values() for key in one.model_fields})
    where = next((name for name, one in _TABLES.items() if found in one.model_fields), None)
    if where in ("serve", "room"):
        return f"{where}.{found}"
    if where is None:
        return ""
    return f"{found} in [[{where}]]" if where else f"{found} at the top, above all tables"


def _closest(unknown: str, keys: Collection[str]) -> str:
    return next(iter(get_close_matches(unknown, sorted(keys), n=1, cutoff=0.75)), "")


def _format_key(path: tuple[int | str, ...]) -> str:
    """Return the key of a setting, such as `serve.listen`; people count tables from one."""
    match path:
        case [("targets" | "discover") as table, int(position), *key]:
            return _format_place(key, str(table), position)
        case ["room", "rules", int(position), *key]:
            return _format_place(key, "room.rules", position)
    return ".".join(map(str, path))


def _format_place(key: Sequence[int | str], table: str, position: int) -> str:
    place = f"[[{table}]] number {position + 1}"
    return f"{'.'.join(map(str, key))} in {place}" if key else place
