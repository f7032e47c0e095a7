"""The tables `[[targets]]` and `[[discover]]`: caches, and the places where caches are found."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from maintainer.settings.app import AppSettings
from maintainer.settings.tables import RoomSettings
from maintainer.settings.values import (
    DEFAULT_STORE,
    Count,
    Cron,
    Delay,
    Grace,
    Interval,
    Name,
    Quota,
    TimeZone,
    Url,
    Variable,
    check_discovery,
    check_pattern,
)
from maintainer.settings.variables import DEFAULT_VARIABLE


class _Overrides(BaseModel):
    """What a target may have instead of the common settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    merged_tag: Name | None = Field(
        default=None, description="overrides the `merged_tag` of all targets"
    )
    verify: bool | None = Field(default=None, description="overrides the `verify` of all targets")
    cron: Cron | None = Field(
        default=None, description="when it runs: a cron expression such as 30 3 * * *"
    )
    interval: Interval | None = Field(
        default=None, description="or how often it runs, such as 6h; the first run starts at once"
    )
    jitter: Delay | None = Field(default=None, description="overrides the `jitter` of [serve]")
    timezone: TimeZone | None = Field(
        default=None, description="overrides the `timezone` of [serve]"
    )
    grace: Grace | None = Field(default=None, description="overrides the `grace` of all targets")
    scopes: tuple[str, ...] | None = Field(
        default=None, description="overrides the `scopes` of all targets"
    )
    merged_scope: Name | None = Field(
        default=None, description="overrides the `merged_scope` of all targets"
    )
    quota: Quota | None = Field(default=None, description="overrides the `quota` of all targets")
    room: RoomSettings | None = Field(
        default=None, description="overrides the whole table `[room]` of all targets"
    )
    api_url: Url | None = Field(
        default=None,
        description="the URL of the REST API, if not that of the environment or github.com",
    )
    token_env: Variable = Field(
        default=DEFAULT_VARIABLE,
        description="the variable that holds the token for the REST API (actions: write)",
    )
    app_id: Count | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="instead of a token: the ID of a GitHub App (with `actions: write`)",
    )
    installation: Count | None = Field(
        default=None, ge=1, le=2**53, description="the ID of the App's installation in an account"
    )
    app_key_env: Variable | None = Field(
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
        default=DEFAULT_STORE,
        description="or the address of another store instead of a repository, such as local:DIR: "
        "`maintainer gc --store help` lists them",
    )


class TargetSettings(_Overrides, _Place):
    """A table `[[targets]]`: one cache that the service maintains."""

    runtime_token_env: Variable | None = Field(
        default=None,
        description="the variable that holds a runtime token of this repository's cache service; "
        "without one, indexes cannot be read or written, so a run lists entries, and deletes "
        "only what `room.closed_refs` and `room.rules` select",
    )
    results_url: Url | None = Field(
        default=None,
        description="the URL of the cache service, version 2, that accepts the runtime token",
    )
    cache_url: Url | None = Field(
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

    name: Annotated[str, AfterValidator(check_discovery)] = Field(
        description="its name, with which the names of its targets begin, such as builders.web",
    )
    store: Annotated[str, AfterValidator(check_pattern)] = Field(
        default=DEFAULT_STORE,
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
