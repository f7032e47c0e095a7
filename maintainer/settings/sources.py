"""Where settings come from: defaults < configuration file < environment < command line."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import (
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from maintainer.database_url import PREFIX
from maintainer.errors import UsageError
from maintainer.settings.common import Settings
from maintainer.settings.mistakes import explained, name_setting, unknown_variable

Source = Literal["command line", "environment", "file"]
"""Where a setting may come from, the strongest first."""
_CONFIG = "MAINTAINER_CONFIG"
_FIELD = re.compile(r'"(\w+)"')
_PLACE = re.compile(r"\(at (line \d+, column \d+|end of document)\)$")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; what cannot be one is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def config_file(config: Path | None) -> Path | None:
    """Return the configuration file: the one of the command line, or else of the environment."""
    return config or (Path(os.environ[_CONFIG]) if os.environ.get(_CONFIG) else None)


def name_of(key: str, config: Path | None) -> str:
    """Return what messages call a setting at the top, unless the command line gives it."""
    sources = read_sources(config, {})
    if key in sources["environment"]:
        return name_setting(key, f"{PREFIX}{key}".upper())
    return name_setting(key, str(config_file(config)) if key in sources["file"] else "")


def read_sources(
    config: Path | None, overrides: Mapping[str, Any]
) -> dict[Source, Mapping[str, Any]]:
    """Return what each source sets, as it is spelled there, once `load_settings` accepts it."""

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=config_file(config))

    return {
        "command line": overrides,
        "environment": EnvSettingsSource(Configured)(),
        "file": TomlConfigSettingsSource(Configured)(),
    }


def load_settings(config: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Read all sources; `overrides` are the options that the command line gives.

    Raises UsageError, in one line that names the key.
    """
    path = config_file(config)
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {_CONFIG}
    for variable in sorted(os.environ):
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            raise unknown_variable(variable)
    if path is not None and not _is_file(path):
        problem = "is a folder" if is_folder(path) else "does not exist"
        raise UsageError(f"the configuration file {path} {problem}")

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return Configured(**overrides)
    except ValidationError as error:
        sources = (EnvSettingsSource(Configured)(), TomlConfigSettingsSource(Configured)())
        rest = ({k: one[k] for k in one.keys() - overrides.keys()} for one in sources)
        raise explained(error, path, *rest) from None
    except SettingsError as error:
        field = _FIELD.search(str(error))
        variable = f"{PREFIX}{field[1].upper()}" if field else "a variable"
        raise UsageError(f"environment: {variable} is not valid JSON") from None
    except RecursionError:
        raise UsageError(f"{path or 'environment'}: a value is nested too deeply") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # Invalid TOML or UTF-8, or a number of too many digits.
        place = _PLACE.search(str(error))
        where = f": see {place[1]}" if place else ""
        raise UsageError(f"{path} is not a valid TOML file{where}") from None
