"""All tables and views."""

import re
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# Nobody reads a generation once a newer one is stored, unless it is signed.
_SUPERSEDED_AT = """
    CASE WHEN NOT generation.signed THEN
        min(CASE WHEN generation.missing_since IS NULL THEN generation.first_seen_at END) OVER (
            PARTITION BY generation.ref_id, generation.scope_id, generation.signed
            ORDER BY generation.number, generation.id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
    END
"""

# In angle brackets: a time.
_VIEWS = {
    # Every entry of every kind and tool, stored or remembered, and why it is kept or not.
    "entries": """
        SELECT target.name AS target, entry.store_id, entry.kind, entry.key, ref.name AS ref,
               entry.digest, entry.size, entry.state, entry.reason, entry.facts,
               <entry.created_at>, <entry.last_accessed_at>, <entry.first_seen_at>,
               <coalesce(entry.last_seen_at, target.listed_at) AS last_seen_at>,
               <entry.missing_since>, <entry.unreferenced_since>, <entry.used_at>,
               <entry.looked_up_at>, <entry.checked_at>, <entry.content_missing_since>
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
    """,
    # Which generation of which index references which blob.
    "blob_uses": """
        SELECT target.name AS target, blob.digest, scope.name AS scope, ref.name AS ref,
               generation.signed, generation.number AS generation, generation.key AS index_key,
               generation.missing_since IS NULL AS is_stored,
               newer.superseded_at IS NOT NULL AS is_superseded
        FROM generation_blob
        JOIN blob ON blob.id = generation_blob.blob_id
        JOIN generation ON generation.id = generation_blob.generation_id
        JOIN (SELECT generation.id, _SUPERSEDED_AT AS superseded_at FROM generation) AS newer
          ON newer.id = generation.id
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id
    """,
    # Every blob that is stored or that an index references, and why it is kept or not.
    "blobs": """
        SELECT target.name AS target, entry.digest, ref.name AS ref, entry.store_id, entry.size,
               entry.state, entry.reason, entry.facts, <entry.created_at>, <entry.last_accessed_at>,
               <entry.first_seen_at>,
               <coalesce(entry.last_seen_at, target.listed_at) AS last_seen_at>,
               <entry.missing_since>, <entry.unreferenced_since>
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
        WHERE entry.kind = 'blob'
        UNION ALL
        SELECT target, digest, NULL, NULL, NULL, state, reason, '{"code":"' || reason || '"}',
               NULL, NULL, first_seen_at, last_seen_at, missing_since, NULL
        FROM (
            SELECT target.name AS target, blob.digest, <blob.first_seen_at>,
                   <CASE WHEN blob.is_found THEN target.probed_at ELSE blob.last_seen_at END
                    AS last_seen_at>,
                   <blob.missing_since>,
                   CASE WHEN blob.missing_since IS NULL THEN 'found' ELSE 'missing' END AS state,
                   CASE WHEN blob.missing_since IS NULL THEN 'found_by_look_up'
                        WHEN blob.content_missing_since IS NOT NULL THEN 'no_content'
                        ELSE 'missing' END AS reason
            FROM blob JOIN target ON target.id = blob.target_id
            WHERE NOT EXISTS (
                SELECT 1 FROM entry
                WHERE entry.target_id = blob.target_id AND entry.digest = blob.digest
                  AND entry.kind = 'blob')) AS unlisted
    """,
    # Every generation of every index, stored or remembered.
    "generations": """
        SELECT target.name AS target, scope.name AS scope, ref.name AS ref,
               generation.number AS generation, generation.signed, generation.key,
               generation.store_id,
               generation.missing_since IS NULL AS is_stored,
               newer.superseded_at IS NOT NULL AS is_superseded,
               generation.violation, generation.size, generation.records,
               generation.results,
               (SELECT count(*) FROM generation_blob
                WHERE generation_blob.generation_id = generation.id) AS blobs,
               (SELECT count(*) FROM generation_blob
                JOIN blob ON blob.id = generation_blob.blob_id
                WHERE generation_blob.generation_id = generation.id
                  AND blob.missing_since IS NOT NULL) AS blobs_missing,
               <generation.first_seen_at>,
               <coalesce(generation.last_seen_at, target.probed_at) AS last_seen_at>,
               <generation.missing_since>, <newer.superseded_at>
        FROM generation
        JOIN (SELECT generation.id, _SUPERSEDED_AT AS superseded_at FROM generation) AS newer
          ON newer.id = generation.id
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id
    """,
    # Every scope in every ref: how many generations, and what the newest stored one offers.
    "scopes": """
        SELECT target, scope, ref, signed, count(*) AS generations,
               count(CASE WHEN is_stored THEN 1 END) AS generations_stored,
               max(CASE WHEN is_stored THEN generation END) AS newest_generation,
               sum(CASE WHEN is_stored THEN size ELSE 0 END) AS size,
               max(last_seen_at) AS last_seen_at
        FROM generations GROUP BY target, scope, ref, signed
    """,
    # Every run and its counts.
    "runs": """
        SELECT run.id, target.name AS target, <run.started_at>, <run.finished_at>, run.status,
               run.dry_run, run.version, run.process, run.entries, run.indexes_read,
               run.indexes_written, run.entries_deleted, run.bytes_freed, run.blobs_missing,
               run.requests, run.results_usable
        FROM run JOIN target ON target.id = run.target_id
    """,
    # What was stored when each run ended, by state.
    "run_states": """
        SELECT run_state.run_id AS run, <run.started_at>, target.name AS target, run_state.state,
               run_state.entries, run_state.size
        FROM run_state
        JOIN run ON run.id = run_state.run_id
        JOIN target ON target.id = run.target_id
    """,
    # Everything that a run did or decided to keep, and why.
    "actions": """
        SELECT action.run_id AS run, <run.started_at>, target.name AS target, action.position,
               action.kind, action.subject, action.ref, action.store_id, action.size,
               action.reason, action.facts, action.outcome, action.outcome_facts
        FROM action
        JOIN run ON run.id = action.run_id
        JOIN target ON target.id = run.target_id
        UNION ALL
        SELECT run.id, <run.started_at>, target.name,
               (SELECT count(*) FROM action WHERE action.run_id = run.id) + keep.id,
               'keep', keep.subject, keep.ref, keep.store_id, keep.size,
               keep.reason, keep.facts, 'kept', '{"code":"kept"}'
        FROM keep
        JOIN target ON target.id = keep.target_id
        JOIN run ON run.target_id = keep.target_id AND run.has_plan
         AND run.id BETWEEN keep.first_run AND coalesce(keep.last_run, run.id)
    """,
}


def upgrade() -> None:
    """Make the tables, then the views that people query."""
    _make_roots()
    _make_entries()
    _make_generations()
    _make_schedule()
    for name, query in _VIEWS.items():
        whole = _with_times(query.replace("_SUPERSEDED_AT", _SUPERSEDED_AT))
        op.execute(f"CREATE VIEW {name} AS {whole}")


def _with_times(query: str) -> str:
    """Show each time that stands in angle brackets as text that can be compared, in UTC."""
    return re.sub(r"<([a-z][^<>]*?)(?:\s+AS (\w+))?>", _as_text, query, flags=re.IGNORECASE)


def _as_text(match: re.Match[str]) -> str:
    time = match[1]
    name = match[2] or time.rpartition(".")[2]
    if op.get_context().dialect.name == "postgresql":
        moment = f"timestamp 'epoch' + ({time}) * interval '1 microsecond'"
        return f"to_char({moment}, 'YYYY-MM-DD HH24\\:MI\\:SS.US') AS {name}"
    # Microseconds since 1970, or before.
    rest = f"((({time}) % 1000000 + 1000000) % 1000000)"
    seconds = f"((({time}) - {rest}) / 1000000)"
    shown = f"strftime('%Y-%m-%d %H:%M:%S', {seconds}, 'unixepoch') || printf('.%06d', {rest})"
    return f"{shown} AS {name}"


def _make_roots() -> None:
    op.create_table(
        "lease",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("token", _WHOLE, nullable=False),
        sa.Column("holder", _TEXT, nullable=False),
        sa.Column("is_locked", sa.Boolean(), nullable=False),
        sa.Column("expires_at", _WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_table(
        "allowance",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("resets", _WHOLE, nullable=False),
        sa.Column("most", _WHOLE, nullable=True),
        sa.Column("remaining", _WHOLE, nullable=True),
        sa.Column("answered", _WHOLE, nullable=False),
        sa.Column("taken", _WHOLE, nullable=False),
        sa.Column("reset_at", _WHOLE, nullable=True),
        sa.Column("paused_until", _WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_allowance"),
    )
    op.create_table(
        "ended",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("number", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name", "status", name="pk_ended"),
    )
    op.create_table(
        "target",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("probed_at", _WHOLE, nullable=True),
        sa.Column("listed_at", _WHOLE, nullable=True),
        sa.Column("idle_run", _WHOLE, nullable=True),
        sa.Column("idle_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("idle_since", _WHOLE, nullable=True),
        sa.Column("idle_until", _WHOLE, nullable=True),
        sa.Column("blocked_since", _WHOLE, nullable=True),
        sa.Column("tried", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_target"),
        sa.UniqueConstraint("name", name="uq_target_name"),
    )
    op.create_table(
        "blob",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("first_seen_at", _WHOLE, nullable=False),
        sa.Column("is_found", sa.Boolean(), nullable=False),
        sa.Column("last_seen_at", _WHOLE, nullable=True),
        sa.Column("missing_since", _WHOLE, nullable=True),
        sa.Column("checked_at", _WHOLE, nullable=True),
        sa.Column("content_missing_since", _WHOLE, nullable=True),
        sa.Column("needed_at", _WHOLE, nullable=True),
        sa.Column("departure", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_blob_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_blob"),
        sa.UniqueConstraint("target_id", "digest", name="uq_blob_target_id_digest"),
    )
    op.create_index(
        "ix_blob_departure",
        "blob",
        ["target_id"],
        sqlite_where=sa.text("departure IS NOT NULL"),
        postgresql_where=sa.text("departure IS NOT NULL"),
    )
    op.create_table(
        "ref",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.Column("writable", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_ref_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ref"),
        sa.UniqueConstraint("target_id", "name", name="uq_ref_target_id_name"),
    )
    op.create_table(
        "doubt",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("ref", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("cause", _TEXT, nullable=False),
        sa.Column("since", _WHOLE, nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_doubt_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_doubt"),
        sa.UniqueConstraint("target_id", "ref", "key", name="uq_doubt_target_id_ref_key"),
    )
    op.create_table(
        "written",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("written_at", _WHOLE, nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_written_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_written"),
        sa.UniqueConstraint("target_id", "key", name="uq_written_target_id_key"),
    )
    op.create_table(
        "run",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("started_at", _WHOLE, nullable=False),
        sa.Column("finished_at", _WHOLE, nullable=True),
        sa.Column("version", _TEXT, nullable=False),
        sa.Column("process", _TEXT, nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("has_plan", sa.Boolean(), nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("entries", _WHOLE, nullable=False),
        sa.Column("indexes_read", _WHOLE, nullable=False),
        sa.Column("indexes_written", _WHOLE, nullable=False),
        sa.Column("entries_deleted", _WHOLE, nullable=False),
        sa.Column("bytes_freed", _WHOLE, nullable=False),
        sa.Column("blobs_missing", _WHOLE, nullable=False),
        sa.Column("requests", _WHOLE, nullable=False),
        sa.Column("results_usable", _WHOLE, nullable=True),
        sa.Column("report", sa.LargeBinary(), nullable=True),
        sa.Column("same_as", _WHOLE, nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_run_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    op.create_index("ix_run_target_id", "run", ["target_id"])
    op.create_table(
        "keep",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("first_run", _WHOLE, nullable=False),
        sa.Column("last_run", _WHOLE, nullable=True),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("ref", _TEXT, nullable=False),
        sa.Column("store_id", _WHOLE, nullable=True),
        sa.Column("size", _WHOLE, nullable=True),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("facts", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_keep_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_keep"),
    )
    op.create_index("ix_keep_target_id_last_run", "keep", ["target_id", "last_run"])
    op.create_table(
        "run_state",
        sa.Column("run_id", _WHOLE, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("entries", _WHOLE, nullable=False),
        sa.Column("size", _WHOLE, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_run_state_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "state", name="pk_run_state"),
    )

    op.create_table(
        "scope",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_scope_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_scope"),
        sa.UniqueConstraint("target_id", "name", name="uq_scope_target_id_name"),
    )
    op.create_table(
        "action",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("run_id", _WHOLE, nullable=False),
        sa.Column("position", _WHOLE, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("ref", _TEXT, nullable=False),
        sa.Column("store_id", _WHOLE, nullable=True),
        sa.Column("size", _WHOLE, nullable=True),
        sa.Column("state", _TEXT, nullable=True),
        sa.Column("rank", _WHOLE, nullable=True),
        sa.Column("after", _TEXT, nullable=True),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("facts", _TEXT, nullable=False),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.Column("outcome_facts", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_action_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_action"),
        sa.UniqueConstraint("run_id", "position", name="uq_action_run_id_position"),
    )
    op.create_index(
        "ix_action_refused",
        "action",
        ["run_id", "store_id"],
        sqlite_where=sa.text("outcome = 'refused'"),
        postgresql_where=sa.text("outcome = 'refused'"),
    )


def _make_entries() -> None:
    op.create_table(
        "entry",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("ref_id", _WHOLE, nullable=False),
        sa.Column("store_id", _WHOLE, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=True),
        sa.Column("size", _WHOLE, nullable=False),
        sa.Column("created_at", _WHOLE, nullable=False),
        sa.Column("last_accessed_at", _WHOLE, nullable=False),
        sa.Column("first_seen_at", _WHOLE, nullable=False),
        sa.Column("last_seen_at", _WHOLE, nullable=True),
        sa.Column("missing_since", _WHOLE, nullable=True),
        sa.Column("used_at", _WHOLE, nullable=False),
        sa.Column("looked_up_at", _WHOLE, nullable=True),
        sa.Column("checked_at", _WHOLE, nullable=True),
        sa.Column("content_missing_since", _WHOLE, nullable=True),
        sa.Column("unreferenced_since", _WHOLE, nullable=True),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("facts", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["ref_id"], ["ref.id"], name="fk_entry_ref_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_entry_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_entry"),
        sa.UniqueConstraint("target_id", "store_id", name="uq_entry_target_id_store_id"),
    )
    op.create_index("ix_entry_digest", "entry", ["target_id", "digest"])
    op.create_index("ix_entry_first_seen_at", "entry", ["target_id", "first_seen_at"])
    op.create_index(
        "ix_entry_missing_since",
        "entry",
        ["target_id", "missing_since"],
        sqlite_where=sa.text("missing_since IS NOT NULL"),
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_index(
        "ix_entry_content_missing_since",
        "entry",
        ["target_id", "content_missing_since"],
        sqlite_where=sa.text("content_missing_since IS NOT NULL"),
        postgresql_where=sa.text("content_missing_since IS NOT NULL"),
    )
    op.create_index("ix_entry_ref_id", "entry", ["ref_id"])


def _make_generations() -> None:
    op.create_table(
        "generation",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("scope_id", _WHOLE, nullable=False),
        sa.Column("ref_id", _WHOLE, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("store_id", _WHOLE, nullable=True),
        sa.Column("location", _TEXT, nullable=True),
        sa.Column("number", _WHOLE, nullable=False),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("content_digest", _TEXT, nullable=False),
        sa.Column("size", _WHOLE, nullable=True),
        sa.Column("records", _WHOLE, nullable=False),
        sa.Column("results", _WHOLE, nullable=False),
        sa.Column("violation", _TEXT, nullable=True),
        sa.Column("first_seen_at", _WHOLE, nullable=False),
        sa.Column("last_seen_at", _WHOLE, nullable=True),
        sa.Column("missing_since", _WHOLE, nullable=True),
        sa.Column("sink", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["ref_id"], ["ref.id"], name="fk_generation_ref_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["scope_id"], ["scope.id"], name="fk_generation_scope_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_generation_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_generation"),
        sa.UniqueConstraint(
            "ref_id", "key", "content_digest", name="uq_generation_ref_id_key_content_digest"
        ),
    )
    op.create_index("ix_generation_target_id", "generation", ["target_id"])
    op.create_index("ix_generation_scope_id_ref_id", "generation", ["scope_id", "ref_id"])

    op.create_table(
        "cache_index",
        sa.Column("id", _WHOLE, nullable=False),
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("ref_id", _WHOLE, nullable=False),
        sa.Column("scope_id", _WHOLE, nullable=False),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("highest", _WHOLE, nullable=False),
        sa.Column("up_to_date_id", _WHOLE, nullable=False),
        sa.Column("up_to_date_at", _WHOLE, nullable=True),
        sa.Column("marked_at", _WHOLE, nullable=True),
        sa.Column("forgotten_at", _WHOLE, nullable=True),
        sa.Column("recent", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["ref_id"], ["ref.id"], name="fk_cache_index_ref_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["scope_id"], ["scope.id"], name="fk_cache_index_scope_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_cache_index_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_cache_index"),
        sa.UniqueConstraint(
            "ref_id", "scope_id", "signed", name="uq_cache_index_ref_id_scope_id_signed"
        ),
    )
    op.create_index("ix_cache_index_target_id", "cache_index", ["target_id"])
    op.create_index("ix_cache_index_scope_id", "cache_index", ["scope_id"])
    op.create_table(
        "memory",
        sa.Column("index_id", _WHOLE, nullable=False),
        sa.Column("day", _TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["cache_index.id"], name="fk_memory_index_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("index_id", "day", name="pk_memory"),
    )

    op.create_table(
        "generation_blob",
        sa.Column("generation_id", _WHOLE, nullable=False),
        sa.Column("blob_id", _WHOLE, nullable=False),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["blob.id"], name="fk_generation_blob_blob_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generation.id"],
            name="fk_generation_blob_generation_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("generation_id", "blob_id", name="pk_generation_blob"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_generation_blob_blob_id", "generation_blob", ["blob_id"])


def _make_schedule() -> None:
    op.create_table(
        "scheduled",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("position", _WHOLE, nullable=False),
        sa.Column("cache", _TEXT, nullable=False),
        sa.Column("rule", _TEXT, nullable=False),
        sa.Column("misfire_grace_seconds", _WHOLE, nullable=False),
        sa.Column("next_run_at", _WHOLE, nullable=False),
        sa.Column("due_at", _WHOLE, nullable=False),
        sa.Column("target", _TEXT, nullable=True),
        sa.Column("running_since", _WHOLE, nullable=True),
        sa.Column("finished_at", _WHOLE, nullable=True),
        sa.Column("status", _TEXT, nullable=True),
        sa.Column("problem", _TEXT, nullable=True),
        sa.Column("run_id", _WHOLE, nullable=True),
        sa.Column("failures", _WHOLE, nullable=False),
        sa.Column("rate_limit_remaining", _WHOLE, nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_scheduled_run_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_scheduled"),
    )
    op.create_table(
        "summary",
        sa.Column("target_id", _WHOLE, nullable=False),
        sa.Column("run_id", _WHOLE, nullable=False),
        sa.Column("status", _TEXT, nullable=False),
        sa.Column("level", _TEXT, nullable=True),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("used", _WHOLE, nullable=False),
        sa.Column("quota", _WHOLE, nullable=True),
        sa.Column("results", _WHOLE, nullable=True),
        sa.Column("space", sa.LargeBinary(), nullable=True),
        sa.Column("succeeded_at", _WHOLE, nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_summary_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("target_id", name="pk_summary"),
    )
    op.create_table(
        "discovery",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("searched_at", _WHOLE, nullable=False),
        sa.Column("completed_at", _WHOLE, nullable=True),
        sa.Column("problem", _TEXT, nullable=True),
        sa.Column("doubted_since", _WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_discovery"),
    )
    op.create_table(
        "discovered",
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("store", _TEXT, nullable=False),
        sa.Column("repository", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("found_at", _WHOLE, nullable=False),
        sa.Column("gone_since", _WHOLE, nullable=True),
        sa.Column("target", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("source", "store", "repository", name="pk_discovered"),
    )
