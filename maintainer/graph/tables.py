"""The tables. People query the views (see the migrations); the tables may change with any version.

All times are UTC. Rows hang below a target, so that deleting one deletes all that is known of it.
What every look shows again is not written again: a row says when it was last seen only once a look
has not shown it.

These are plain tables: no statement here needs an ORM, which takes long to import.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SQLColumnExpression,
    Table,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.types import TypeEngine

from maintainer.graph.columns import OutcomeText, Packed, ReasonText, UtcDateTime
from maintainer.graph.dialect import TEXT, WHOLE
from maintainer.model.reason import Reason, code_of

_Type = type[TypeEngine[Any]] | TypeEngine[Any]


def reason_columns(reason: Reason) -> dict[str, object]:
    """Return what the columns of a row hold of a reason: its code, and all of it."""
    return {"reason": code_of(reason), "facts": reason}


def _column(name: str, of: _Type, **more: Any) -> Column[Any]:  # noqa: ANN401
    return Column(name, of, nullable=False, **more)


def _optional(name: str, of: _Type, **more: Any) -> Column[Any]:  # noqa: ANN401
    return Column(name, of, **more)


def _parent(name: str, table: str, **more: Any) -> Column[Any]:  # noqa: ANN401
    return Column(name, ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False, **more)


METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TARGET = Table(
    "target",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _column("name", TEXT, unique=True),
    # When a run last looked what there is, and recorded it.
    _optional("probed_at", UtcDateTime),
    # The same, of the last look that could list entries.
    _optional("listed_at", UtcDateTime),
    # The last run, if it did everything and had nothing to do.
    _optional("idle_run", WHOLE),
    # Of what it depended on.
    _optional("idle_fingerprint", LargeBinary),
    _optional("idle_since", UtcDateTime),
    # When something falls due at the earliest.
    _optional("idle_until", UtcDateTime),
    # Since when no run could delete blobs, if so; runs that could not list entries do not count.
    _optional("blocked_since", UtcDateTime),
    # What a run has found out by trying that the store can do, and when, as JSON.
    _optional("tried", TEXT),
)
"""One cache that is maintained."""

REF = Table(
    "ref",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("name", TEXT),
    _column("readable", Boolean),
    _column("writable", Boolean),
    UniqueConstraint("target_id", "name"),
)
"""A git ref that has written entries."""

SCOPE = Table(
    "scope",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("name", TEXT),
    UniqueConstraint("target_id", "name"),
)
"""A scope of BuildKit's."""

ENTRY = Table(
    "entry",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _parent("ref_id", "ref", index=True),
    # The id by which the store knows it.
    _column("store_id", WHOLE),
    _column("key", TEXT),
    # `blob`, `index`, `signature`, `upload`, or `foreign`.
    _column("kind", TEXT),
    # Of a blob, or of the index that a signature signs.
    _optional("digest", TEXT),
    # Bytes.
    _column("size", WHOLE),
    _column("created_at", UtcDateTime),
    _column("last_accessed_at", UtcDateTime),
    _column("first_seen_at", UtcDateTime),
    # When a look last showed it; none if the last one that listed did.
    _optional("last_seen_at", UtcDateTime),
    _optional("missing_since", UtcDateTime),
    # When a build last used it, as far as known: like `last_accessed_at`, without our look-ups.
    _column("used_at", UtcDateTime),
    # When a run last looked it up to check it, or to keep the order in which builds used it.
    _optional("looked_up_at", UtcDateTime),
    # When a run last found out whether its content can be downloaded.
    _optional("checked_at", UtcDateTime),
    # Since when it is known that its content cannot be downloaded, if so.
    _optional("content_missing_since", UtcDateTime),
    # Since when it is unreachable (a blob, a signature) or superseded (an index).
    _optional("unreferenced_since", UtcDateTime),
    # As marked by the last run that saw it; `evicted` by GitHub, `removed` from a directory by
    # others, or `deleted` by a run.
    _column("state", TEXT),
    # The code of the reason.
    _column("reason", TEXT),
    # The whole reason, as JSON.
    _column("facts", ReasonText),
    UniqueConstraint("target_id", "store_id"),
    # With the target: by the digest alone, SQLite would rather read all entries of the target.
    Index("ix_entry_digest", "target_id", "digest"),
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
"""An entry of the store, ours or not, as the last listing showed it."""

BLOB = Table(
    "blob",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("digest", TEXT),
    _column("first_seen_at", UtcDateTime),
    # Whether it existed at the last look.
    _column("is_found", Boolean, default=False),
    # If not: when it was last known to exist.
    _optional("last_seen_at", UtcDateTime),
    _optional("missing_since", UtcDateTime),
    # When a run last found out whether its content can be downloaded.
    _optional("checked_at", UtcDateTime),
    # Since when it is known that a look-up finds it, but its content cannot be downloaded.
    _optional("content_missing_since", UtcDateTime),
    # When the newest index that a build has exported and that references it was created.
    _optional("needed_at", UtcDateTime),
    # Why the results that need it have left, as JSON; none once a build has exported it again.
    _optional("departure", ReasonText),
    UniqueConstraint("target_id", "digest"),
    Index(
        "ix_blob_departure",
        "target_id",
        sqlite_where=text("departure IS NOT NULL"),
    ),
)
"""A blob that an index references, whether it exists or not."""

GENERATION = Table(
    "generation",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target", index=True),
    _parent("scope_id", "scope"),
    _parent("ref_id", "ref"),
    _column("key", TEXT),
    # Its entry, where the store lists entries.
    _optional("store_id", WHOLE),
    # Shows, where it does not, whether a look-up still finds the same content.
    _optional("location", TEXT),
    _column("number", WHOLE),
    _column("signed", Boolean),
    # The index as it was read; none if it is not valid, or is gone and needed no more.
    _optional("content", Packed),
    _column("content_digest", TEXT),
    # Bytes of the index as it was read; none if it is not valid.
    _optional("size", WHOLE),
    _column("records", WHOLE),
    _column("results", WHOLE),
    # The rule that makes it invalid.
    _optional("violation", TEXT),
    _column("first_seen_at", UtcDateTime),
    # When it was last known to be stored; none if the last look showed it.
    _optional("last_seen_at", UtcDateTime),
    _optional("missing_since", UtcDateTime),
    # The digest of the sink record, which only indexes that we write have.
    _optional("sink", TEXT),
    # Numbers start again once all generations were evicted, so a key alone may repeat.
    UniqueConstraint("ref_id", "key", "content_digest"),
    # The scope first: to forget one, the database looks for generations of it.
    Index("ix_generation_scope_id_ref_id", "scope_id", "ref_id"),
)
"""One generation of an index, remembered even when its entry is gone."""

CACHE_INDEX = Table(
    "cache_index",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target", index=True),
    _parent("ref_id", "ref"),
    _parent("scope_id", "scope", index=True),
    _column("signed", Boolean),
    # The highest generation that was ever seen.
    _column("highest", WHOLE),
    # The generation that was the last one seen to hold all that was live; 0 if none was.
    _column("up_to_date_id", WHOLE, default=0),
    _optional("up_to_date_at", UtcDateTime),
    # When a run that had seen everything last recorded since when each entry is unreferenced.
    _optional("marked_at", UtcDateTime),
    # When its owner had it forgotten; none once a build has exported to it again.
    _optional("forgotten_at", UtcDateTime),
    # Of a name: sketches of the last exports of builds, as JSON.
    _optional("recent", TEXT),
    UniqueConstraint("ref_id", "scope_id", "signed"),
)
"""One index, with all its generations: what is remembered of it hangs below."""

MEMORY = Table(
    "memory",
    METADATA,
    _parent("index_id", "cache_index", primary_key=True),
    # Of what a tag has led to: the day on which another export was seen in its place. Empty for
    # the newest export of a tag, and for all that was read of a numbered index.
    _column("day", TEXT, primary_key=True),
    # As JSON.
    _column("content", Packed),
)
"""A merge of what was read of an index, whether its blobs exist or not."""

GENERATION_BLOB = Table(
    "generation_blob",
    METADATA,
    _parent("generation_id", "generation", primary_key=True),
    _parent("blob_id", "blob", primary_key=True, index=True),
    sqlite_with_rowid=False,
)
"""Which generation references which blob."""

DOUBT = Table(
    "doubt",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("ref", TEXT),
    _column("key", TEXT),
    _column("cause", TEXT),
    _column("since", UtcDateTime),
    UniqueConstraint("target_id", "ref", "key"),
)
"""A generation that could not be read, and the answer in its place, always the same."""

WRITTEN = Table(
    "written",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("key", TEXT),
    _column("written_at", UtcDateTime),
    UniqueConstraint("target_id", "key"),
)
"""An entry that a run has written: others have added the rest."""

RUN = Table(
    "run",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target", index=True),
    _column("started_at", UtcDateTime),
    _optional("finished_at", UtcDateTime),
    # Of maintainer.
    _column("version", TEXT),
    # Who runs it: process number and host.
    _column("process", TEXT),
    _column("dry_run", Boolean),
    # Whether the file has what it decided to keep.
    _column("has_plan", Boolean, default=False),
    # `running`, `done`, `failed`, `interrupted`, or `killed`: found running by a later run.
    _column("status", TEXT),
    _column("entries", WHOLE, default=0),
    # What was new to it, or had changed.
    _column("indexes_read", WHOLE, default=0),
    _column("indexes_written", WHOLE, default=0),
    _column("entries_deleted", WHOLE, default=0),
    _column("bytes_freed", WHOLE, default=0),
    # Gone, and referenced by newest generations: each counts in each index.
    _column("blobs_missing", WHOLE, default=0),
    _column("requests", WHOLE, default=0),
    # Results that builds could use when the run ended; none if it could read no index.
    _optional("results_usable", WHOLE),
    # The report as JSON, without its actions; of an idle run, what differs from `same_as`.
    _optional("report", Packed),
    # Of an idle run: the run that did everything, and whose report it repeats.
    _optional("same_as", WHOLE),
)
"""One run and its result."""

RUN_STATE = Table(
    "run_state",
    METADATA,
    _parent("run_id", "run", primary_key=True),
    _column("state", TEXT, primary_key=True),
    _column("entries", WHOLE),
    # Bytes.
    _column("size", WHOLE),
)
"""What was stored when a run ended, by state. None for a run that could not list entries."""

SUMMARY = Table(
    "summary",
    METADATA,
    _parent("target_id", "target", primary_key=True),
    _column("run_id", WHOLE),
    # Of that run.
    _column("status", TEXT),
    # The level and the sentence of its verdict.
    _optional("level", TEXT),
    _column("message", TEXT),
    # Bytes.
    _column("used", WHOLE),
    _optional("quota", WHOLE),
    # Results that builds can use; none if the run could read no index.
    _optional("results", WHOLE),
    # What takes the space, as JSON.
    _optional("space", Packed),
    # When a run last succeeded.
    _optional("succeeded_at", UtcDateTime),
)
"""The figures of the last run on a target that succeeded, or else of the last one.

If that ended before it had any, what was used and found is from the run before it.
"""

KEEP = Table(
    "keep",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("target_id", "target"),
    _column("first_run", WHOLE),
    # None if the last run that decided about anything decided this too.
    _optional("last_run", WHOLE),
    # The key, or what the decision is about.
    _column("subject", TEXT),
    _column("ref", TEXT),
    _optional("store_id", WHOLE),
    _optional("size", WHOLE),
    # The code of the reason.
    _column("reason", TEXT),
    # The whole reason, as JSON.
    _column("facts", ReasonText),
    Index("ix_keep_target_id_last_run", "target_id", "last_run"),
)
"""A decision to keep something, once for all runs in a row that decided the same."""

ACTION = Table(
    "action",
    METADATA,
    _column("id", WHOLE, primary_key=True),
    _parent("run_id", "run"),
    # From 0, in the order in which the run carries them out; negative while the plan is made.
    _column("position", WHOLE),
    # `write`, `delete`, or `keep`.
    _column("kind", TEXT),
    # The key, or what the decision is about.
    _column("subject", TEXT),
    _column("ref", TEXT),
    _optional("store_id", WHOLE),
    _optional("size", WHOLE),
    # What a deleted entry was.
    _optional("state", TEXT),
    # Of a deletion: those of lower ranks come first.
    _optional("rank", WHOLE),
    # Of a deletion: the indexes that must have been rewritten before, as JSON.
    _optional("after", TEXT),
    # The code of the reason.
    _column("reason", TEXT),
    # The whole reason, as JSON.
    _column("facts", ReasonText),
    # `planned`, `done`, `already_gone`, `kept`, `skipped`, `deferred`, `failed` or
    # `refused`.
    _column("outcome", TEXT),
    # The whole outcome, as JSON.
    _column("outcome_facts", OutcomeText),
    UniqueConstraint("run_id", "position"),
    Index("ix_action_refused", "run_id", "store_id", sqlite_where=text("outcome = 'refused'")),
)
"""One thing that a run did, or decided to keep when its plan was made already."""

SCHEDULED = Table(
    "scheduled",
    METADATA,
    _column("name", TEXT, primary_key=True),
    # Its place in the configuration.
    _column("position", WHOLE),
    # A digest of the location of its cache; another cache makes it another target.
    _column("cache", TEXT),
    # When it runs, in words; a changed rule changes the next run.
    _column("rule", TEXT),
    _column("misfire_grace_seconds", WHOLE),
    # When the next run begins; in the past while it waits for another one.
    _column("next_run_at", UtcDateTime),
    # The same, but a run that is skipped leaves it in the past: the target is then overdue.
    _column("due_at", UtcDateTime),
    # The name of its cache, known after the first run.
    _optional("target", TEXT),
    _optional("running_since", UtcDateTime),
    _optional("finished_at", UtcDateTime),
    # Of the last attempt: `done`, `failed` or `interrupted`.
    _optional("status", TEXT),
    # Why it failed.
    _optional("problem", TEXT),
    Column("run_id", ForeignKey("run.id", ondelete="SET NULL")),
    # In a row.
    _column("failures", WHOLE),
    # Requests that the REST API allows the token, as last reported.
    _optional("rate_limit_remaining", WHOLE),
)
"""A target of a service, when it runs next, and the result of its last attempt.

An attempt can fail before there is a run, for example without a token.
"""

DISCOVERY = Table(
    "discovery",
    METADATA,
    _column("name", TEXT, primary_key=True),
    # A digest of the discovery and the place that it searches.
    _column("source", TEXT),
    _column("searched_at", UtcDateTime),
    # When a search last found everything.
    _optional("completed_at", UtcDateTime),
    # Why the last search may not have.
    _optional("problem", TEXT),
    # Since when searches find so little that they are not believed.
    _optional("doubted_since", UtcDateTime),
)
"""The last search of a place for caches."""

DISCOVERED = Table(
    "discovered",
    METADATA,
    # Of the discovery.
    _column("source", TEXT, primary_key=True),
    # The settings of a target.
    _column("store", TEXT, primary_key=True),
    _column("repository", TEXT, primary_key=True),
    # Within the place that is searched.
    _column("name", TEXT),
    _column("found_at", UtcDateTime),
    # Since when searches do not find it any more, if so.
    _optional("gone_since", UtcDateTime),
    # Of a cache that is gone: the name of its part of the graph, which is kept for a month.
    _optional("target", TEXT),
)
"""A cache that a search has found."""

ENDED = Table(
    "ended",
    METADATA,
    # Of the target; empty for all that are not there any more.
    _column("name", TEXT, primary_key=True),
    # `done`, `failed` or `interrupted`.
    _column("status", TEXT, primary_key=True),
    _column("number", WHOLE),
)
"""How many attempts have ended, ever: runs are forgotten, and a counter must not fall."""

LEASE = Table(
    "lease",
    METADATA,
    # Of the target; empty in a file, which is held as a whole.
    _column("name", TEXT, primary_key=True),
    # Higher with each lease: who states an older one has lost it.
    _column("token", WHOLE),
    # Who has it, or had it last: process number and host.
    _column("holder", TEXT),
    # Whether the holder had the lock of the target, too, which ends with its process.
    _column("is_locked", Boolean),
    # By the clock of the database, in microseconds since 1970; none if it was given back.
    _optional("expires_at", WHOLE),
)
"""The right to work on a target."""

ALLOWANCE = Table(
    "allowance",
    METADATA,
    # A digest of the token or installation that it is for.
    _column("name", TEXT, primary_key=True),
    # The rest as in `model/allowance.py`, by the clock of the database.
    _column("resets", WHOLE),
    _optional("most", WHOLE),
    _optional("remaining", WHOLE),
    _column("answered", WHOLE),
    _column("taken", WHOLE),
    _optional("reset_at", UtcDateTime),
    _optional("paused_until", UtcDateTime),
)
"""Rate limits that several processes share. A file has none: it is for one process."""

ENTRY_OF_GENERATION = (ENTRY.c.target_id == GENERATION.c.target_id) & (
    ENTRY.c.store_id == GENERATION.c.store_id
)
"""Joins a generation to its entry, where the store lists entries."""


def listed_at(target_id: SQLColumnExpression[int] | int) -> ColumnElement[datetime | None]:
    """Return when entries of a target were last listed."""
    return select(TARGET.c.listed_at).where(TARGET.c.id == target_id).scalar_subquery()


def probed_at(target_id: SQLColumnExpression[int] | int) -> ColumnElement[datetime | None]:
    """Return when a run last looked at a target."""
    return select(TARGET.c.probed_at).where(TARGET.c.id == target_id).scalar_subquery()
