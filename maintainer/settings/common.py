"""The settings at the top of the file: those of every run, and the defaults of targets."""

from collections import Counter
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from maintainer.database_url import DEFAULT, PREFIX, check_database
from maintainer.model.limits import DEFAULT_GRACE
from maintainer.sanitize import printable
from maintainer.settings.tables import RoomSettings, ServeSettings
from maintainer.settings.targets import DiscoverSettings, TargetSettings
from maintainer.settings.values import (
    DEFAULT_STORE,
    Count,
    Deadline,
    Delay,
    Grace,
    Name,
    Quota,
    Share,
    Size,
    split_list,
)


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
    database_key: Name = Field(
        default="",
        description="the beginning of the keys of the cache entries in which the Action saves the "
        "database: in the run's own ref the two newest ones stay; an empty name turns it off",
    )
    grace: Grace = Field(
        default=DEFAULT_GRACE,
        description="how long an entry must be unreferenced before it is deleted",
    )
    store: str = Field(
        default=DEFAULT_STORE,
        description="the location of the cache: github, the one that the environment names, or "
        "the address of another store, such as local:DIR, a directory that BuildKit exports to: "
        "`maintainer gc --store help` lists them",
    )
    merged_tag: Name = Field(
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
    remember_exports: Delay = Field(
        default=timedelta(days=30),
        description="how long a replaced export of a tag or name is still merged into it, "
        "in whole days; 0 keeps the newest export only",
    )
    scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = Field(
        default=("buildkit",),
        description="the scopes to look up if the service cannot list its entries",
    )
    merged_scope: Name = Field(
        default="maintained",
        description="the scope to which each run writes the merge of all others of its ref, for "
        "builds to import but not to export to; an empty name turns it off",
    )
    verify_after: Delay = Field(
        default=timedelta(days=3),
        description="how often the blobs that indexes need are checked: each is looked up and one "
        "byte of it downloaded, first when it is new and again after this time; so often the "
        "newest index of each scope is read again, too; 0 turns this off",
    )
    keep_alive: Delay = Field(
        default=timedelta(days=14),
        description="how long after its last use by a build a blob is still checked, which keeps "
        "GitHub from evicting it; 0 checks a blob only once",
    )
    generation_gap: Count = Field(
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
    reservation_wait: Delay = Field(
        default=timedelta(seconds=30),
        description="how long to wait for a build that has reserved the next generation but not "
        "finished it, before the next number is used",
    )
    export_wait: Delay = Field(
        default=timedelta(minutes=2),
        description="how long to wait for the index of an export in progress, if blobs are due to "
        "be deleted; then they are deferred to the next run. Runs with `max_requests` or "
        "`deadline` do not wait",
    )
    quota: Quota | None = Field(
        default=None,
        description="how much the cache may store, such as 10GB; by default GitHub is asked when "
        "it evicts, and 10GB are assumed if the token is not allowed to ask; other stores have "
        "none",
    )
    max_index_size: Size = Field(
        default=ByteSize(256 * 1024 * 1024),
        gt=0,
        description="the largest index that is read or written, such as 256MiB",
    )
    max_merge_size: Size = Field(
        default=ByteSize(8 * 1024 * 1024),
        gt=0,
        description="how large an index may become by what is merged into it, such as 8MiB: each "
        "build that imports it takes longer; results that builds used longest ago are left out",
    )
    max_requests: Count | None = Field(
        default=None,
        ge=1,
        description="how many requests a run may send; the rest is deferred to the next run",
    )
    deadline: Deadline | None = Field(
        default=None,
        description="after how long a run starts nothing new; the rest is deferred to the next run",
    )
    rest_share: Share = Field(
        default=0.5,
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
            del counts[DEFAULT_STORE]
            for value, times in counts.items():
                if times > 1:
                    # A store that is not valid may hold a secret.
                    which = "same store" if what == "store" else f"{what} {printable(value)}"
                    raise ValueError(f"there are {times} with the {which}")
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
