"""The tables. People query the views (see the migrations); the tables may change with any version.

All times are UTC. Rows hang below a target, so that deleting one deletes all that is known of it.
What every look shows again is not written again: a row says when it was last seen only once a look
has not shown it.
"""

from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SQLColumnExpression,
    Text,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column

from maintainer.graph.tables import OutcomeText, Packed, ReasonText, UtcDateTime
from maintainer.model.outcome import AlreadyGone, Done, Outcome
from maintainer.model.reason import Reason, code_of

CARRIED_OUT = tuple(code_of(outcome) for outcome in (Done(), AlreadyGone()))
"""The codes of the outcomes after which what was decided is so."""


def reason_columns(reason: Reason) -> dict[str, object]:
    """Return what the columns of a row hold of a reason: its code, and all of it."""
    return {"reason": code_of(reason), "facts": reason}


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), str: Text(), bytes: LargeBinary()}  # noqa: RUF012


def _belongs_to(column: str) -> MappedColumn[int]:
    return mapped_column(ForeignKey(column, ondelete="CASCADE"))


class Target(Base):
    """One cache that is maintained."""

    __tablename__ = "target"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    probed_at: Mapped[datetime | None]
    """When a run last looked what there is, and recorded it."""
    listed_at: Mapped[datetime | None]
    """The same, of the last look that could list entries."""
    idle_run: Mapped[int | None]
    """The last run, if it did everything and had nothing to do."""
    idle_fingerprint: Mapped[bytes | None]
    """Of what it depended on."""
    idle_since: Mapped[datetime | None]
    idle_until: Mapped[datetime | None]
    """When something falls due at the earliest."""
    blocked_since: Mapped[datetime | None]
    """Since when no run could delete blobs, if so; runs that could not list entries do not count.
    """


class RefRow(Base):
    """A git ref that has written entries."""

    __tablename__ = "ref"
    __table_args__ = (UniqueConstraint("target_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    name: Mapped[str]
    readable: Mapped[bool]
    writable: Mapped[bool]


class ScopeRow(Base):
    """A scope of BuildKit's."""

    __tablename__ = "scope"
    __table_args__ = (UniqueConstraint("target_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    name: Mapped[str]


class EntryRow(Base):
    """An entry of the store, ours or not, as the last listing showed it."""

    __tablename__ = "entry"
    __table_args__ = (
        UniqueConstraint("target_id", "store_id"),
        Index("ix_entry_first_seen_at", "target_id", "first_seen_at"),
        Index(
            "ix_entry_missing_since",
            "target_id",
            "missing_since",
            sqlite_where=text("missing_since IS NOT NULL"),
        ),
        Index(
            "ix_entry_content_missing_since",
            "target_id",
            "content_missing_since",
            sqlite_where=text("content_missing_since IS NOT NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    ref_id: Mapped[int] = mapped_column(ForeignKey("ref.id", ondelete="CASCADE"), index=True)
    store_id: Mapped[int]
    """The id by which the store knows it."""
    key: Mapped[str]
    kind: Mapped[str]
    """`blob`, `index`, `signature`, `upload`, or `foreign`."""
    digest: Mapped[str | None] = mapped_column(index=True)
    """Of a blob, or of the index that a signature signs."""
    size: Mapped[int]
    """Bytes."""
    created_at: Mapped[datetime]
    last_accessed_at: Mapped[datetime]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    """When a look last showed it; none if the last one that listed did."""
    missing_since: Mapped[datetime | None]
    used_at: Mapped[datetime]
    """When a build last used it, as far as known: like `last_accessed_at`, without our look-ups."""
    looked_up_at: Mapped[datetime | None]
    """When a run last looked it up to check it, or to keep the order in which builds used it."""
    checked_at: Mapped[datetime | None]
    """When a run last found out whether its content can be downloaded."""
    content_missing_since: Mapped[datetime | None]
    """Since when it is known that its content cannot be downloaded, if so."""
    unreferenced_since: Mapped[datetime | None]
    """Since when it is unreachable (a blob, a signature) or superseded (an index)."""
    state: Mapped[str]
    """As marked by the last run that saw it; `evicted` by GitHub, `removed` from a directory by
    others, or `deleted` by a run."""
    reason: Mapped[str]
    """The code of the reason."""
    facts: Mapped[Reason] = mapped_column(ReasonText)
    """The whole reason, as JSON."""


class BlobRow(Base):
    """A blob that an index references, whether it exists or not."""

    __tablename__ = "blob"
    __table_args__ = (UniqueConstraint("target_id", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    digest: Mapped[str]
    first_seen_at: Mapped[datetime]
    is_found: Mapped[bool] = mapped_column(default=False)
    """Whether it existed at the last look."""
    last_seen_at: Mapped[datetime | None]
    """If not: when it was last known to exist."""
    missing_since: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    """When a run last found out whether its content can be downloaded."""
    content_missing_since: Mapped[datetime | None]
    """Since when it is known that a look-up finds it, but its content cannot be downloaded."""


class GenerationRow(Base):
    """One generation of an index, remembered even when its entry is gone."""

    __tablename__ = "generation"
    __table_args__ = (
        # Numbers start again once all generations were evicted, so a key alone may repeat.
        UniqueConstraint("ref_id", "key", "content_digest"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("target.id", ondelete="CASCADE"), index=True)
    scope_id: Mapped[int] = _belongs_to("scope.id")
    ref_id: Mapped[int] = _belongs_to("ref.id")
    key: Mapped[str]
    store_id: Mapped[int | None]
    """Its entry, where the store lists entries."""
    location: Mapped[str | None]
    """Shows, where it does not, whether a look-up still finds the same content."""
    number: Mapped[int]
    signed: Mapped[bool]
    content: Mapped[bytes | None] = mapped_column(Packed)
    """The index as it was read; none if it is not valid, or is gone and needed no more."""
    content_digest: Mapped[str]
    size: Mapped[int | None]
    """Bytes of the index as it was read; none if it is not valid."""
    records: Mapped[int]
    results: Mapped[int]
    violation: Mapped[str | None]
    """The rule that makes it invalid."""
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    """When it was last known to be stored; none if the last look showed it."""
    missing_since: Mapped[datetime | None]
    sink: Mapped[str | None]
    """The digest of the sink record, which only indexes that we write have."""


class IndexRow(Base):
    """One index, with all its generations: what is remembered of it hangs below."""

    __tablename__ = "cache_index"
    __table_args__ = (UniqueConstraint("ref_id", "scope_id", "signed"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("target.id", ondelete="CASCADE"), index=True)
    ref_id: Mapped[int] = _belongs_to("ref.id")
    scope_id: Mapped[int] = mapped_column(ForeignKey("scope.id", ondelete="CASCADE"), index=True)
    signed: Mapped[bool]
    highest: Mapped[int]
    """The highest generation that was ever seen."""
    up_to_date_id: Mapped[int] = mapped_column(default=0)
    """The generation that was the last one seen to hold all that was live; 0 if none was."""
    up_to_date_at: Mapped[datetime | None]
    marked_at: Mapped[datetime | None]
    """When a run that had seen everything last recorded since when each entry is unreferenced."""


class MemoryRow(Base):
    """A merge of what was read of an index, whether its blobs exist or not."""

    __tablename__ = "memory"
    index_id: Mapped[int] = mapped_column(
        ForeignKey("cache_index.id", ondelete="CASCADE"), primary_key=True
    )
    day: Mapped[str] = mapped_column(primary_key=True)
    """Of what a tag has led to: the day on which another export was seen in its place. Empty for
    the newest export of a tag, and for all that was read of a numbered index.
    """
    content: Mapped[bytes] = mapped_column(Packed)
    """As JSON."""


class GenerationBlobRow(Base):
    """Which generation references which blob."""

    __tablename__ = "generation_blob"
    __table_args__ = ({"sqlite_with_rowid": False},)
    generation_id: Mapped[int] = mapped_column(
        ForeignKey("generation.id", ondelete="CASCADE"), primary_key=True
    )
    blob_id: Mapped[int] = mapped_column(
        ForeignKey("blob.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class DoubtRow(Base):
    """A generation that could not be read, and the answer in its place, always the same."""

    __tablename__ = "doubt"
    __table_args__ = (UniqueConstraint("target_id", "ref", "key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    ref: Mapped[str]
    key: Mapped[str]
    cause: Mapped[str]
    since: Mapped[datetime]


class RunRow(Base):
    """One run and its result."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("target.id", ondelete="CASCADE"), index=True)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    version: Mapped[str]
    """Of maintainer."""
    process: Mapped[str]
    """Who runs it: process number and host."""
    dry_run: Mapped[bool]
    has_plan: Mapped[bool] = mapped_column(default=False)
    """Whether the file has what it decided to keep."""
    status: Mapped[str]
    """`running`, `done`, `failed`, `interrupted`, or `killed`: found running by a later run."""
    entries: Mapped[int] = mapped_column(default=0)
    indexes_read: Mapped[int] = mapped_column(default=0)
    indexes_written: Mapped[int] = mapped_column(default=0)
    entries_deleted: Mapped[int] = mapped_column(default=0)
    bytes_deleted: Mapped[int] = mapped_column(default=0)
    blobs_missing: Mapped[int] = mapped_column(default=0)
    """Referenced by an index that was merged, and gone."""
    requests: Mapped[int] = mapped_column(default=0)
    results_usable: Mapped[int | None]
    """Results that builds could use when the run ended; none if it could read no index."""
    report: Mapped[bytes | None] = mapped_column(Packed)
    """The report as JSON, without its actions; of an idle run, what differs from `same_as`."""
    same_as: Mapped[int | None]
    """Of an idle run: the run that did everything, and whose report it repeats."""


class RunStateRow(Base):
    """What was stored when a run ended, by state. None for a run that could not list entries."""

    __tablename__ = "run_state"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    entries: Mapped[int]
    size: Mapped[int]
    """Bytes."""


class KeepRow(Base):
    """A decision to keep something, once for all runs in a row that decided the same."""

    __tablename__ = "keep"
    __table_args__ = (Index("ix_keep_target_id_last_run", "target_id", "last_run"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = _belongs_to("target.id")
    first_run: Mapped[int]
    last_run: Mapped[int | None]
    """None if the last run that decided about anything decided this too."""
    subject: Mapped[str]
    """The key, or what the decision is about."""
    ref: Mapped[str]
    store_id: Mapped[int | None]
    size: Mapped[int | None]
    reason: Mapped[str]
    """The code of the reason."""
    facts: Mapped[Reason] = mapped_column(ReasonText)
    """The whole reason, as JSON."""


class ActionRow(Base):
    """One thing that a run did, or decided to keep when its plan was made already."""

    __tablename__ = "action"
    __table_args__ = (UniqueConstraint("run_id", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = _belongs_to("run.id")
    position: Mapped[int]
    """From 0, in the order in which the run carries them out; negative while the plan is made."""
    kind: Mapped[str]
    """`write`, `delete`, or `keep`."""
    subject: Mapped[str]
    """The key, or what the decision is about."""
    ref: Mapped[str]
    store_id: Mapped[int | None]
    size: Mapped[int | None]
    state: Mapped[str | None]
    """What a deleted entry was."""
    rank: Mapped[int | None]
    """Of a deletion: those of lower ranks come first."""
    after: Mapped[str | None]
    """Of a deletion: the indexes that must have been rewritten before, as JSON."""
    reason: Mapped[str]
    """The code of the reason."""
    facts: Mapped[Reason] = mapped_column(ReasonText)
    """The whole reason, as JSON."""
    outcome: Mapped[str]
    """`planned`, `done`, `already_gone`, `kept`, `skipped`, `deferred` or `failed`."""
    outcome_facts: Mapped[Outcome] = mapped_column(OutcomeText)
    """The whole outcome, as JSON."""


class ScheduledRow(Base):
    """A target of a service, when it runs next, and the result of its last attempt.

    An attempt can fail before there is a run, for example without a token.
    """

    __tablename__ = "scheduled"
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    """Its place in the configuration."""
    cache: Mapped[str]
    """A digest of the location of its cache; another cache makes it another target."""
    rule: Mapped[str]
    """When it runs, in words; a changed rule changes the next run."""
    misfire_grace_seconds: Mapped[int]
    next_run_at: Mapped[datetime]
    """When the next run begins; in the past while it waits for another one."""
    due_at: Mapped[datetime]
    """The same, but a run that is skipped leaves it in the past: the target is then overdue."""
    target: Mapped[str | None]
    """The name of its cache, known after the first run."""
    running_since: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    status: Mapped[str | None]
    """Of the last attempt: `done`, `failed` or `interrupted`."""
    problem: Mapped[str | None]
    """Why it failed."""
    run_id: Mapped[int | None] = mapped_column(ForeignKey("run.id", ondelete="SET NULL"))
    failures: Mapped[int]
    """In a row."""
    rate_limit_remaining: Mapped[int | None]
    """Requests that the REST API allows the token, as last reported."""


def listed_at(target_id: SQLColumnExpression[int] | int) -> ColumnElement[datetime | None]:
    """Return when entries of a target were last listed."""
    return select(Target.listed_at).where(Target.id == target_id).scalar_subquery()


def probed_at(target_id: SQLColumnExpression[int] | int) -> ColumnElement[datetime | None]:
    """Return when a run last looked at a target."""
    return select(Target.probed_at).where(Target.id == target_id).scalar_subquery()
