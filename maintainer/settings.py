"""What people can set: defaults < configuration file < environment < command line.

The only place that reads the environment.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from maintainer.errors import UsageError

_PREFIX = "MAINTAINER_"
_CONFIG = "MAINTAINER_CONFIG"
_DURATION = re.compile(r"(\d{1,9})\s*(s|m|h|d|w)?", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> object:
    """Read `90s`, `30m`, `24h`, `7d` or `2w`; a bare number is seconds. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise ValueError("is no duration such as 90s, 30m, 24h, 7d or 2w")
    try:
        return timedelta(**{_UNITS[match[2] or "s"]: int(match[1])})
    except OverflowError:
        raise ValueError("is too long") from None


def _split(value: object) -> object:
    """Read a list from one variable: separated by commas, or JSON for names that hold one."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("is no JSON list") from None
    return [name.strip() for name in value.split(",") if name.strip()]


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


class Settings(BaseSettings):
    """Each field is a key of the file and, as `MAINTAINER_…`, a variable."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    database: str = Field(
        default="sqlite:///maintainer.db",
        pattern=r"^sqlite:///.+",
        description="where the graph is kept: an SQLite URL, relative to the working directory",
    )
    grace: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(0),
        le=timedelta(days=3650),
        description="how long nothing must have needed an entry before it is deleted",
    )
    scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=("buildkit",),
        description="the scopes to look up where the service cannot list its entries",
    )
    generation_gap: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="how many numbers in a row must be missing before the search for older "
        "generations ends, where the service cannot list its entries",
    )
    reservation_wait: Duration = Field(
        default=timedelta(seconds=30),
        description="how long to wait for a build that has reserved the next generation and not "
        "finished it, before the number after it is taken",
    )
    quota: ByteSize = Field(
        default=ByteSize(10_000_000_000),
        gt=0,
        description="how much the host stores before it evicts, such as 10GB",
    )
    max_index_size: ByteSize = Field(
        default=ByteSize(256 * 1024 * 1024),
        gt=0,
        description="a larger index is refused before it is read whole, such as 256MiB",
    )
    max_requests: int | None = Field(
        default=None,
        ge=1,
        description="how many requests a run may send; what is left is for the next run",
    )
    deadline: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="after how long a run begins nothing new; what is left is for the next run",
    )
    rest_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="the share of the REST API's remaining rate limit that a run may use, so that "
        "other workflows of the repository do not starve",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the command line before the environment, and that before the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def defaults(cls) -> Self:
        """Give the settings of somebody who has set nothing."""
        return cls.model_construct()


class GitHubSettings(BaseModel):
    """What a workflow's own environment says: where the cache is, and what may be done to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    results_url: str | None = Field(default=None, alias="ACTIONS_RESULTS_URL")
    cache_url: str | None = Field(default=None, alias="ACTIONS_CACHE_URL")
    runtime_token: SecretStr | None = Field(default=None, alias="ACTIONS_RUNTIME_TOKEN")
    cache_service_v2: bool = Field(default=False, alias="ACTIONS_CACHE_SERVICE_V2")
    token: SecretStr | None = Field(default=None, alias="GITHUB_TOKEN")
    repository: str | None = Field(
        default=None, alias="GITHUB_REPOSITORY", pattern=r"^[\w.-]+/[\w.-]+$"
    )
    api_url: str = Field(default="https://api.github.com", alias="GITHUB_API_URL")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read GitHub's own variables; an empty one counts as not set.

        Raises UsageError, in one line that names the variable.
        """
        try:
            return cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            raise UsageError(_say(error, None)) from None


def load_settings(config: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """Read all sources; `overrides` is what the command line says, without what it does not.

    Raises UsageError, in one line that names the key.
    """
    path = config or (Path(os.environ[_CONFIG]) if os.environ.get(_CONFIG) else None)
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | {_CONFIG}
    for variable in sorted(os.environ):
        if variable.upper().startswith(_PREFIX) and variable.upper() not in known:
            raise UsageError(f"environment: {variable} is no setting")
    if path is not None and not path.is_file():
        raise UsageError(f"the configuration file {path} does not exist")

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return Configured(**overrides)
    except ValidationError as error:
        raise UsageError(_say(error, path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _say(error: ValidationError, path: Path | None) -> str:
    """Put the first problem into one line, without the value: it may be a secret."""
    problem = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key {key!r}"
    message = problem["msg"].removeprefix("Value error, ").replace("\n", " ")
    return f"setting {key}: {message[0].lower()}{message[1:]}"
