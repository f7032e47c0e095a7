"""The tables `[room]` and `[serve]` of the configuration file."""

from collections import Counter
from datetime import timedelta
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from maintainer.cacheconfig import BLOB_PREFIX
from maintainer.model.limits import KeepFree, ToolRule
from maintainer.sanitize import printable
from maintainer.settings.values import (
    Count,
    Delay,
    Interval,
    Quota,
    TimeZone,
    check_hosts,
    check_listen,
    parse_keep_free,
)


class RuleSettings(BaseModel):
    """A table `[[room.rules]]`: what one other tool may store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = Field(
        min_length=1,
        max_length=512,
        description="the beginning of the keys that the rule is about; it never selects entries of "
        "BuildKit, except names of a bucket or container if it begins with the prefix of manifests",
    )
    keep_newest: Count | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="how many of these entries stay in each ref: those created last",
    )
    unused_for: Interval | None = Field(
        default=None, description="how long an entry stays after its last use, such as 5d"
    )
    max_bytes: Quota | None = Field(
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

    listen: Annotated[str, AfterValidator(check_listen)] = Field(
        default="127.0.0.1:9309",
        description="the address of pages and metrics; anyone who can reach it can read them",
    )
    hosts: Annotated[tuple[str, ...], AfterValidator(check_hosts)] = Field(
        default=(),
        description="additional host names under which the pages may be requested, "
        "without a port; loopback names and the address of `listen` are always allowed",
    )
    interval: Interval = Field(
        default=timedelta(hours=6),
        description="how often targets without `cron` and `interval` run",
    )
    jitter: Delay = Field(
        default=timedelta(0),
        description="delays each run by a random time up to this",
    )
    timezone: TimeZone = Field(
        default="UTC", description="the time zone of cron expressions, such as Europe/Berlin"
    )
    misfire_grace: Interval = Field(
        default=timedelta(hours=1),
        description="how late a cron run may start; later runs are skipped. A target whose run is "
        "later than this is overdue",
    )
    discover_interval: Interval = Field(
        default=timedelta(hours=1),
        description="how often the places of `[[discover]]` are searched",
    )
    backoff_max: Interval = Field(
        default=timedelta(hours=1),
        description="the longest pause before a failed target is retried; the first pause is 30 s, "
        "and each one is twice as long as the one before",
    )
    runs_per_host: Count = Field(
        default=50,
        ge=1,
        le=10_000,
        description="how many targets of one host, such as api.github.com, all workers together "
        "run at once",
    )
