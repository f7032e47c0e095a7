"""The settings: defaults < configuration file < environment < command line.

The only place that reads values from the environment.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from maintainer.cacheconfig import BLOB_PREFIX
from maintainer.database_url import DEFAULT, PREFIX, check_database
from maintainer.errors import SettingError, UsageError
from maintainer.model.limits import KeepFree, ToolRule
from maintainer.sanitize import printable
from maintainer.validation import explain

DEFAULT_API_URL = "https://api.github.com"
Source = Literal["command line", "environment", "file"]
"""Where a setting may come from, the strongest first."""
VARIABLES = {
    "GITHUB_REPOSITORY": True,
    "GITHUB_API_URL": False,
    "GITHUB_TOKEN": False,
    "ACTIONS_RUNTIME_TOKEN": False,
    "ACTIONS_RESULTS_URL": False,
    "ACTIONS_CACHE_URL": False,
    "ACTIONS_CACHE_SERVICE_V2": False,
}
"""GitHub's own variables, and whether the value of each may be shown: URLs may contain secrets."""
_CONFIG = "MAINTAINER_CONFIG"
_MAX_PORT = 65_535
_LARGEST_KEY = 64 * 1024
"""Bytes of a private key."""
_LONGEST_NAME = 32
"""Characters of a variable's name; tokens have more."""
_DEFAULT_VARIABLE = "GITHUB_TOKEN"
_UNSET_BY_DEFAULT = f"{_DEFAULT_VARIABLE} is not set: set it, or name another variable by token_env"
_DURATION = re.compile(r"(?:(\d{1,9})\s*(w|d|h|m|s)\s*)+", re.ASCII)
_PART = re.compile(r"(\d+)\s*(\w)", re.ASCII)
_DISCOVERY = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)\s*%", re.ASCII)
_HAS_UNIT = re.compile(r"\d[\d.]*\s*[a-zA-Z]+", re.ASCII)
_FIELD = re.compile(r'"(\w+)"')
_PLACE = re.compile(r"\(at (line \d+, column \d+|end of document)\)$")
_CRON_FIELDS = 5
_CRON_FORM = "of five fields such as '30 3 * * *'"
_ANY_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_DEFAULT_STORE = "github"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> object:
    """Read `90s`, `30m`, `24h`, `7d`, `2w` or `1d12h`; only 0 needs no unit. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    words = str(text).strip()
    if words and not words.strip("0"):
        return timedelta(0)
    parts = _PART.findall(words) if _DURATION.fullmatch(words) else []
    units = [unit for _, unit in parts]
    if not parts or len(set(units)) < len(units):
        raise ValueError("is not a valid duration; use 90s, 30m, 24h, 7d, 2w or 1d12h")
    try:
        return timedelta(**{_UNITS[unit]: int(number) for number, unit in parts})
    except OverflowError:
        raise ValueError("is too long") from None


def parse_keep_free(value: object) -> object:
    """Read `15%` or `1.5GB`; an empty text is None. Raises ValueError."""
    if value is None or isinstance(value, KeepFree):
        return value
    text = value.strip() if isinstance(value, str) else " "
    if not text:
        return None
    if share := _SHARE.fullmatch(text):
        return KeepFree(share=float(share[1]) / 100)
    try:
        if _HAS_UNIT.fullmatch(text):
            return KeepFree(size=int(TypeAdapter(ByteSize).validate_python(text)))
    except ValidationError:
        pass
    raise ValueError("is not a valid amount; use 15% or 1.5GB")


def _check_size(value: object) -> object:
    """Refuse `true`, which would be one byte: a quota of that deletes all. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("is not a valid size; use 10GB or 256MiB")  # noqa: TRY004 - Pydantic's
    return value


def parse_size(text: str) -> int:
    """Read a size such as `10GB`. Raises ValueError."""
    try:
        return int(_SIZE.validate_python(text.strip()))
    except ValidationError:
        raise ValueError("is not a valid size; use 10GB or 256MiB") from None


def parse_sizes(text: str) -> list[int]:
    """Read sizes such as `5GB,10GB`. Raises ValueError."""
    try:
        return [int(one) for one in _SIZES.validate_python(_split(text))]
    except ValidationError:
        raise ValueError("is not a list of sizes such as 5GB,10GB,20GB") from None


def _split(value: object) -> object:
    """Read a list from one variable: separated by commas, or JSON for names with commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is not a valid JSON list") from None
    return [name.strip() for name in value.split(",") if name.strip()]


def check_cron(text: str) -> str:
    """Return a cron expression of five fields. Raises ValueError."""
    if len(text.split()) != _CRON_FIELDS:
        raise ValueError(f"is not a valid cron expression {_CRON_FORM}")
    try:
        first = next(CronSim(text, _ANY_DAY), None)
    except CronSimError as error:
        raise ValueError(
            f"is not a valid cron expression {_CRON_FORM}: {str(error).lower()}"
        ) from None
    if first is None:
        raise ValueError("names a day that never comes")
    return text


def _check_discovery(name: str) -> str:
    if not _DISCOVERY.fullmatch(name):
        raise ValueError("is not valid; use up to 32 letters, digits, dashes and underscores")
    return name


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a valid time zone; use UTC or Europe/Berlin") from None
    return name


def _check_listen(text: str) -> str:
    split_listen(text)
    return text


def split_listen(text: str) -> tuple[str, int]:
    """Read HOST:PORT, where HOST is an address or `localhost`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        raise ValueError("is not a valid address; use 127.0.0.1:9309") from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _MAX_PORT):  # noqa: PLR2004
        raise ValueError("is not a valid address; use 127.0.0.1:9309")
    return host, int(port)


# The limits come first, so that Pydantic's own rule checks them, with its well-known messages.
_Grace = Annotated[
    timedelta, Field(ge=timedelta(0), le=timedelta(days=3650)), BeforeValidator(parse_duration)
]
_Deadline = Annotated[
    timedelta, Field(gt=timedelta(0), le=timedelta(days=366)), BeforeValidator(parse_duration)
]
_Interval = Annotated[
    timedelta,
    Field(ge=timedelta(seconds=1), le=timedelta(days=366)),
    BeforeValidator(parse_duration),
]
_Delay = Annotated[
    timedelta, Field(ge=timedelta(0), le=timedelta(days=366)), BeforeValidator(parse_duration)
]
_Cron = Annotated[str, AfterValidator(check_cron)]
_TimeZone = Annotated[str, AfterValidator(_check_timezone)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Size = Annotated[ByteSize, BeforeValidator(_check_size)]
_Quota = Annotated[_Size, Field(gt=0, le=10**18)]
_SIZE = TypeAdapter(_Quota)
_SIZES = TypeAdapter(Annotated[list[_Quota], Field(min_length=1)])
_Scope = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,256}$")]
_Url = Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]


class RuleSettings(BaseModel):
    """A table `[[room.rules]]`: what one other tool may store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = Field(
        min_length=1,
        max_length=512,
        description="the beginning of the keys that the rule is about; it never selects entries of "
        "BuildKit, except names of a bucket or container if it begins with the prefix of manifests",
    )
    keep_newest: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="how many of these entries stay in each ref: those created last",
    )
    unused_for: _Interval | None = Field(
        default=None, description="how long an entry stays after its last use, such as 5d"
    )
    max_bytes: _Quota | None = Field(
        default=None,
        description="how much these entries may take in all refs, such as 1GB; those used longest "
        "ago leave first",
    )

    @property
    def value(self) -> ToolRule:
        """The rule, as policies know it."""
        size = None if self.max_bytes is None else int(self.max_bytes)
        return ToolRule(self.prefix, self.keep_newest, self.unused_for, size)

    @field_validator("prefix")
    @classmethod
    def _is_of_another_tool(cls, prefix: str) -> str:
        if prefix.startswith(BLOB_PREFIX):
            raise ValueError("is the beginning of BuildKit's keys; rules are for other tools")
        return prefix

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if (self.keep_newest, self.unused_for, self.max_bytes) == (None, None, None):
            raise ValueError("keep_newest, unused_for or max_bytes must be set")
        return self


class RoomSettings(BaseModel):
    """The table `[room]`: what leaves a cache besides what is unreferenced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_free: Annotated[KeepFree | None, BeforeValidator(parse_keep_free)] = Field(
        default=None,
        description="how much of the quota must stay free at least, such as 15% or 1.5GB; by "
        "default nothing is deleted that builds need",
    )
    closed_refs: bool = Field(
        default=False,
        description="whether entries of closed pull requests, and of deleted branches and tags, "
        "are deleted; the token needs `pull-requests: read` and `contents: read`",
    )
    rules: tuple[RuleSettings, ...] = Field(
        default=(), description="what other tools may store; by default there is no limit"
    )

    @field_validator("rules")
    @classmethod
    def _are_different(cls, rules: tuple[RuleSettings, ...]) -> tuple[RuleSettings, ...]:
        for prefix, times in Counter(rule.prefix for rule in rules).items():
            if times > 1:
                raise ValueError(f"there are {times} with the prefix {printable(prefix)}")
        return rules


class ServeSettings(BaseModel):
    """The table `[serve]`: the service itself, and defaults of its targets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        default="127.0.0.1:9309",
        description="the address of pages and metrics; anyone who can reach it can read them",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="additional host names under which the pages may be requested; "
        "loopback names and the address of `listen` are always allowed",
    )
    interval: _Interval = Field(
        default=timedelta(hours=6),
        description="how often targets without `cron` and `interval` run",
    )
    jitter: _Delay = Field(
        default=timedelta(0),
        description="delays each run by a random time up to this",
    )
    timezone: _TimeZone = Field(
        default="UTC", description="the time zone of cron expressions, such as Europe/Berlin"
    )
    misfire_grace: _Interval = Field(
        default=timedelta(hours=1),
        description="how late a cron run may start; later runs are skipped. A target whose run is "
        "later than this is overdue",
    )
    discover_interval: _Interval = Field(
        default=timedelta(hours=1),
        description="how often the places of `[[discover]]` are searched",
    )
    backoff_max: _Interval = Field(
        default=timedelta(hours=1),
        description="the longest pause before a failed target is retried; the first pause is 30 s, "
        "and each one is twice as long as the one before",
    )
    runs_per_host: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="how many targets of one host, such as api.github.com, all workers together "
        "run at once",
    )


class AppSettings(BaseModel):
    """An installation of a GitHub App, and where the App's private key is."""

    model_config = ConfigDict(frozen=True)

    app_id: int
    installation: int
    key_env: str | None = None
    key_file: str | None = None

    @property
    def key_name(self) -> str:
        """What messages call the place of the key."""
        if self.key_file is not None:
            return printable(self.key_file)
        return shown_variable(self.key_env or "", "app_key_env")

    def read_key(self) -> str:
        """Read the private key; it is never kept. Raises UsageError, without it."""
        if self.key_file is None:
            # Where a variable has only one line, line breaks are often spelled so.
            key = os.environ.get(self.key_env or "", "").replace("\\n", "\n")
        else:
            key = _read_text(self.key_file)
        if not key.strip():
            raise UsageError(f"the private key of the GitHub App: {self.key_name} is not set")
        return key


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - it may be a device
            return file.read(_LARGEST_KEY)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError:
        problem = "it is not text"
    raise UsageError(f"the private key of the GitHub App: {printable(path)}: {problem}")


class _Overrides(BaseModel):
    """What a target may have instead of the common settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    merged_tag: _Scope | None = Field(
        default=None, description="overrides the `merged_tag` of all targets"
    )
    verify: bool | None = Field(default=None, description="overrides the `verify` of all targets")
    cron: _Cron | None = Field(
        default=None, description="when it runs: a cron expression such as 30 3 * * *"
    )
    interval: _Interval | None = Field(
        default=None, description="or how often it runs, such as 6h; the first run starts at once"
    )
    jitter: _Delay | None = Field(default=None, description="overrides the `jitter` of [serve]")
    timezone: _TimeZone | None = Field(
        default=None, description="overrides the `timezone` of [serve]"
    )
    grace: _Grace | None = Field(default=None, description="overrides the `grace` of all targets")
    scopes: tuple[str, ...] | None = Field(
        default=None, description="overrides the `scopes` of all targets"
    )
    merged_scope: _Scope | None = Field(
        default=None, description="overrides the `merged_scope` of all targets"
    )
    quota: _Quota | None = Field(default=None, description="overrides the `quota` of all targets")
    room: RoomSettings | None = Field(
        default=None, description="overrides the whole table `[room]` of all targets"
    )
    api_url: _Url | None = Field(
        default=None,
        description="the URL of the REST API, if not that of the environment or github.com",
    )
    token_env: _Variable = Field(
        default=_DEFAULT_VARIABLE,
        description="the variable that holds the token for the REST API (actions: write)",
    )
    app_id: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="instead of a token: the ID of a GitHub App (with `actions: write`)",
    )
    installation: int | None = Field(
        default=None, ge=1, le=2**53, description="the ID of the App's installation in an account"
    )
    app_key_env: _Variable | None = Field(
        default=None, description="the variable that holds the App's private key, in PEM format"
    )
    app_key_file: str | None = Field(
        default=None, min_length=1, description="or the file that holds it"
    )

    @property
    def app(self) -> AppSettings | None:
        """The installation of a GitHub App that is used instead of a token, if so."""
        if self.app_id is None or self.installation is None:
            return None
        return AppSettings(
            app_id=self.app_id,
            installation=self.installation,
            key_env=self.app_key_env,
            key_file=self.app_key_file,
        )

    @model_validator(mode="after")
    def _has_a_whole_app(self) -> Self:
        if self.app_key_file and ("-----BEGIN" in self.app_key_file or "\n" in self.app_key_file):
            raise ValueError("app_key_file must be the name of a file: it is a key itself")
        keys = [key for key in (self.app_key_env, self.app_key_file) if key is not None]
        if not keys and self.app_id is None and self.installation is None:
            return self
        if self.app_id is None or self.installation is None or len(keys) != 1:
            raise ValueError(
                "a GitHub App needs app_id, installation, and one of app_key_env and app_key_file"
            )
        return self

    @model_validator(mode="after")
    def _has_one_rule(self) -> Self:
        if self.cron is not None and self.interval is not None:
            raise ValueError("cron and interval exclude each other")
        return self


class _Place(BaseModel):
    """The name of a target, and where its cache is."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="its name in pages, metrics and logs",
    )
    repository: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="the repository of the Actions cache: owner/name",
    )
    store: str = Field(
        default=_DEFAULT_STORE,
        description="or the address of another store instead of a repository, such as local:DIR: "
        "`maintainer gc --store help` lists them",
    )


class TargetSettings(_Overrides, _Place):
    """A table `[[targets]]`: one cache that the service maintains."""

    runtime_token_env: _Variable | None = Field(
        default=None,
        description="the variable that holds a runtime token of this repository's cache service; "
        "without one, only usage is reported, because indexes cannot be read or "
        "written",
    )
    results_url: _Url | None = Field(
        default=None,
        description="the URL of the cache service, version 2, that accepts the runtime token",
    )
    cache_url: _Url | None = Field(
        default=None,
        description="the URL of the cache service, version 1, that accepts the runtime token",
    )

    @model_validator(mode="after")
    def _has_a_service(self) -> Self:
        if self.runtime_token_env and not (self.results_url or self.cache_url):
            raise ValueError("runtime_token_env needs results_url or cache_url")
        return self


class _Search(BaseModel):
    """The name of a discovery, where it searches, and what it selects."""

    name: Annotated[str, AfterValidator(_check_discovery)] = Field(
        description="its name, with which the names of its targets begin, such as builders.web",
    )
    store: str = Field(
        default=_DEFAULT_STORE,
        description="where caches are searched: the address of a store with a pattern, such as "
        "local:DIR/*, the directories below DIR",
    )
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = Field(
        default=None,
        description="or an organization of GitHub, whose repositories are searched; or "
        "`app_id` and `installation` of a GitHub App, whose repositories are",
    )
    include: tuple[str, ...] = Field(
        default=("*",),
        description="patterns of names: a cache becomes a target if one of them matches",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="patterns of names that become no targets"
    )


class DiscoverSettings(_Overrides, _Search):
    """A table `[[discover]]`: a place where caches are found that become targets."""


class Settings(BaseSettings):
    """Each field is a key of the file and, as `MAINTAINER_…`, a variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    database: Annotated[str, AfterValidator(check_database)] = Field(
        default=DEFAULT,
        description="where the graph is stored: an SQLite file or its URL, relative to the working "
        "directory, or a database of a PostgreSQL server, postgresql+psycopg://USER@HOST/NAME",
    )
    database_key: _Scope = Field(
        default="",
        description="the beginning of the keys of the cache entries in which the Action saves the "
        "database: in the run's own ref the two newest ones stay; an empty name turns it off",
    )
    grace: _Grace = Field(
        default=timedelta(hours=24),
        description="how long an entry must be unreferenced before it is deleted",
    )
    store: str = Field(
        default=_DEFAULT_STORE,
        description="the location of the cache: github, the one that the environment names, or "
        "the address of another store, such as local:DIR, a directory that BuildKit exports to: "
        "`maintainer gc --store help` lists them",
    )
    merged_tag: _Scope = Field(
        default="maintained",
        description="the tag of a directory or registry, or the name in a bucket or container, to "
        "which each run writes the merge of all others, for builds to import but not to export "
        "to; an empty name turns it off",
    )
    verify: bool = Field(
        default=False,
        description="whether the content of each blob of a directory is checked against its "
        "digest, which reads them all",
    )
    remember_exports: _Delay = Field(
        default=timedelta(days=30),
        description="how long a replaced export of a tag or name is still merged into it, "
        "in whole days; 0 keeps the newest export only",
    )
    scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=("buildkit",),
        description="the scopes to look up if the service cannot list its entries",
    )
    merged_scope: _Scope = Field(
        default="maintained",
        description="the scope to which each run writes the merge of all others of its ref, for "
        "builds to import but not to export to; an empty name turns it off",
    )
    verify_after: _Delay = Field(
        default=timedelta(days=3),
        description="how often the blobs that indexes need are checked: each is looked up and one "
        "byte of it downloaded, first when it is new and again after this time; 0 "
        "turns this off",
    )
    keep_alive: _Delay = Field(
        default=timedelta(days=14),
        description="how long after its last use by a build a blob is still checked, which keeps "
        "GitHub from evicting it; 0 checks a blob only once",
    )
    generation_gap: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="how many numbers in a row must be missing before the search for older "
        "generations ends, if the service cannot list its entries",
    )
    unreadable_refs: Literal["protect", "ignore"] = Field(
        default="protect",
        description="whether indexes in refs that the token cannot read, such as those of pull "
        "requests, protect the blobs that they may need; ignore frees these at once, and builds "
        "there may find fewer results, or fail",
    )
    reservation_wait: _Delay = Field(
        default=timedelta(seconds=30),
        description="how long to wait for a build that has reserved the next generation but not "
        "finished it, before the next number is used",
    )
    export_wait: _Delay = Field(
        default=timedelta(minutes=2),
        description="how long to wait for the index of an export in progress, if blobs are due to "
        "be deleted; then they are deferred to the next run. Runs with `max_requests` or "
        "`deadline` do not wait",
    )
    quota: _Quota | None = Field(
        default=None,
        description="how much the cache may store, such as 10GB; by default GitHub is asked when "
        "it evicts, and 10GB are assumed if the token is not allowed to ask; a directory has none",
    )
    max_index_size: _Size = Field(
        default=ByteSize(256 * 1024 * 1024),
        gt=0,
        description="the largest index that is read or written, such as 256MiB",
    )
    max_merge_size: _Size = Field(
        default=ByteSize(8 * 1024 * 1024),
        gt=0,
        description="how large an index may become by what is merged into it, such as 8MiB: each "
        "build that imports it takes longer; results that builds used longest ago are left out",
    )
    max_requests: int | None = Field(
        default=None,
        ge=1,
        description="how many requests a run may send; the rest is deferred to the next run",
    )
    deadline: _Deadline | None = Field(
        default=None,
        description="after how long a run starts nothing new; the rest is deferred to the next run",
    )
    rest_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="the share of the REST API's remaining rate limit that a run may use, so that "
        "the rest is available to other workflows of the repository",
    )

    log_format: Literal["text", "json"] = Field(
        default="text",
        description="the format of log lines on stderr: text, or one JSON object per line",
    )
    room: RoomSettings = Field(
        default=RoomSettings(), description="what leaves a cache besides what is unreferenced"
    )
    serve: ServeSettings = Field(
        default=ServeSettings(), description="the service, `maintainer serve`"
    )
    targets: tuple[TargetSettings, ...] = Field(
        default=(),
        description="the caches that the service maintains; by default the environment's own",
    )
    discover: tuple[DiscoverSettings, ...] = Field(
        default=(), description="places where the service finds more caches to maintain"
    )

    @field_validator("discover")
    @classmethod
    def _have_different_names(
        cls, tables: tuple[DiscoverSettings, ...]
    ) -> tuple[DiscoverSettings, ...]:
        for name, times in Counter(table.name.lower() for table in tables).items():
            if times > 1:
                raise ValueError(f"there are {times} with the name {printable(name)}")
        return tables

    @field_validator("targets")
    @classmethod
    def _are_different(cls, targets: tuple[TargetSettings, ...]) -> tuple[TargetSettings, ...]:
        for what in ("name", "repository", "store"):
            values = (getattr(target, what) for target in targets)
            counts = Counter(one if what == "store" else one.lower() for one in values if one)
            del counts[_DEFAULT_STORE]
            for value, times in counts.items():
                if times > 1:
                    raise ValueError(f"there are {times} with the {what} {printable(value)}")
        return targets

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the command line override the environment, and the environment the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def defaults(cls) -> Self:
        """Return the default settings."""
        return cls.model_construct()


class GitHubSettings(BaseModel):
    """A workflow's own environment: the location of the cache, and the permissions of a run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    results_url: str | None = Field(default=None, alias="ACTIONS_RESULTS_URL")
    cache_url: str | None = Field(default=None, alias="ACTIONS_CACHE_URL")
    runtime_token: SecretStr | None = Field(default=None, alias="ACTIONS_RUNTIME_TOKEN")
    cache_service_v2: bool = Field(default=False, alias="ACTIONS_CACHE_SERVICE_V2")
    token: SecretStr | None = Field(default=None, alias="GITHUB_TOKEN")
    repository: str | None = Field(
        default=None, alias="GITHUB_REPOSITORY", pattern=r"^[\w.-]+/[\w.-]+$"
    )
    api_url: str = Field(default=DEFAULT_API_URL, alias="GITHUB_API_URL")
    app: AppSettings | None = Field(default=None, init=False)
    """What is used instead of `token`."""
    token_env: str = Field(default=_DEFAULT_VARIABLE, init=False)
    """The variable that holds `token`, for messages."""
    runtime_token_env: str = Field(default="ACTIONS_RUNTIME_TOKEN", init=False)
    """The variable that holds `runtime_token`."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read GitHub's own variables; an empty one counts as not set.

        Raises UsageError, in one line that names the variable.
        """
        try:
            return cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            raise _explained(error, None) from None

    @classmethod
    def of_target(
        cls,
        target: TargetSettings,
        environment: Mapping[str, str] = os.environ,
        *,
        needs_tokens: bool = True,
    ) -> Self:
        """Return the location of a target's cache, with the tokens from its variables.

        The environment's own runtime token is valid only for the environment's own repository.
        Raises UsageError if there is no token, unless only the location is needed.
        """
        token = "" if target.app else environment.get(target.token_env, "")
        runtime: dict[str, str] = {}
        if target.runtime_token_env:
            runtime = {
                "ACTIONS_RUNTIME_TOKEN": environment.get(target.runtime_token_env, ""),
                "ACTIONS_RESULTS_URL": target.results_url or "",
                "ACTIONS_CACHE_URL": target.cache_url or "",
                "ACTIONS_CACHE_SERVICE_V2": "true" if target.results_url else "",
            }
            if needs_tokens and not runtime["ACTIONS_RUNTIME_TOKEN"]:
                raise UsageError(
                    _format_unset(target.name, "runtime_token_env", target.runtime_token_env)
                )
        elif _is_own(target, environment):
            runtime = {k: v for k, v in environment.items() if k.startswith("ACTIONS_")}
        wants_token = "token_env" in target.model_fields_set or not target.runtime_token_env
        if needs_tokens and wants_token and not token and not target.app:
            raise UsageError(_format_unset(target.name, "token_env", target.token_env))
        api_url = target.api_url or environment.get("GITHUB_API_URL", "")
        place = {"GITHUB_REPOSITORY": target.repository or "", "GITHUB_API_URL": api_url}
        names: dict[str, object] = {
            "token_env": shown_variable(target.token_env, "token_env"),
            "app": target.app,
        }
        if target.runtime_token_env:
            names["runtime_token_env"] = shown_variable(
                target.runtime_token_env, "runtime_token_env"
            )
        settings = cls.read(runtime | place | {"GITHUB_TOKEN": token})
        return settings.model_copy(update=names)


class StepSettings(BaseModel):
    """The runner's variables of the current step: where it may write outputs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    summary: Path | None = Field(default=None, alias="GITHUB_STEP_SUMMARY")
    output: Path | None = Field(default=None, alias="GITHUB_OUTPUT")
    temporary: Path | None = Field(default=None, alias="RUNNER_TEMP")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the runner's own variables; an empty one counts as not set."""
        return cls.model_validate({k: v for k, v in environment.items() if v})


def target_of(repository: str) -> TargetSettings:
    """Return the target for a repository that the command line names. Raises UsageError."""
    try:
        target = TargetSettings(name="repository", repository=repository)
    except ValidationError:
        raise UsageError("--repository is not a valid repository; use OWNER/NAME") from None
    if not os.environ.get(target.token_env):
        raise UsageError(f"{target.token_env} is not set: `gh auth token` prints one")
    return target


def _is_own(target: TargetSettings, environment: Mapping[str, str]) -> bool:
    """Whether a target is the environment's own repository, on the environment's own host."""
    api_url = environment.get("GITHUB_API_URL") or DEFAULT_API_URL
    repository = environment.get("GITHUB_REPOSITORY", "")
    cache = (target.repository or "", target.api_url or api_url)
    return tuple(map(_folded, cache)) == tuple(map(_folded, (repository, api_url)))


def _folded(text: str) -> str:
    return text.lower().rstrip("/")


def shown_variable(variable: str, key: str) -> str:
    """Return a text that refers to a variable: its name, unless that may be the token itself."""
    return variable if _is_name(variable) else f"the variable of {key}"


def _is_name(variable: str) -> bool:
    """Whether a text looks like the name of a variable: some people put the token there."""
    return variable.isupper() and len(variable) <= _LONGEST_NAME


def api_url_of(table: TargetSettings | DiscoverSettings) -> str:
    """Return the URL of the REST API for the caches of a table."""
    return table.api_url or os.environ.get("GITHUB_API_URL") or DEFAULT_API_URL


def token_of(table: DiscoverSettings) -> str:
    """Return the token with which a place is searched. Raises UsageError if it is not set."""
    if token := os.environ.get(table.token_env, ""):
        return token
    if table.token_env == _DEFAULT_VARIABLE:
        raise UsageError(_UNSET_BY_DEFAULT)
    variable = shown_variable(table.token_env, "token_env")
    raise UsageError(f"token_env names {variable}, which is not set")


def _format_unset(target: str, key: str, variable: str) -> str:
    """Return the error for a variable that is not set."""
    if variable == _DEFAULT_VARIABLE:
        return f"target {target}: {_UNSET_BY_DEFAULT}"
    named = f"{variable}, which" if _is_name(variable) else "a variable that"
    return f"target {target}: {key} names {named} is not set"


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


def name_of_store() -> str:
    """Return what messages call the setting `store`, unless the command line gives it."""
    variable = f"{PREFIX}STORE"
    is_set = any(name.upper() == variable and value for name, value in os.environ.items())
    return _name("store", variable if is_set else "")


def _name(key: str, variable: str) -> str:
    """Return what messages call a setting: with the variable that sets it, if one does."""
    return f"setting {key} (from {variable})" if variable else f"setting {key}"


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
            raise UsageError(f"environment: {variable} is not a setting")
    if path is not None and not _is_file(path):
        problem = "is a folder" if is_folder(path) else "does not exist"
        raise UsageError(f"the configuration file {path} {problem}")

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return Configured(**overrides)
    except ValidationError as error:
        variables = EnvSettingsSource(Configured)()
        environment = {key: variables[key] for key in variables.keys() - overrides.keys()}
        raise _explained(error, path, environment) from None
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


def _explained(
    error: ValidationError, path: Path | None, environment: Mapping[str, Any] | None = None
) -> UsageError:
    """Return the first problem as an error, without the value: it may be a secret.

    `environment` is what our own variables set, and the command line does not.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    place = problem["loc"]
    variable = f"{PREFIX}{place[0]}".upper() if _is_set(environment or {}, place) else ""
    if problem["type"] == "extra_forbidden":
        unknown = ".".join(map(str, place))
        meant = _find_similar(place)
        advice = f": did you mean {meant}?" if meant else ""
        return UsageError(f"{variable or path or 'environment'}: unknown key {unknown!r}{advice}")
    key = _format_key(place)
    name = _name(key, variable)
    if problem["type"] == "missing":
        return UsageError(f"{name} is missing")
    return SettingError(key, explain(problem), name=name)


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
