"""All tables and views."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Nobody reads a generation once a newer one is stored, unless it is signed.
_SUPERSEDED_AT = """
    CASE WHEN NOT generation.signed THEN
        min(CASE WHEN generation.missing_since IS NULL THEN generation.first_seen_at END) OVER (
            PARTITION BY generation.ref_id, generation.scope_id, generation.signed
            ORDER BY generation.number, generation.id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
    END
"""

_VIEWS = {
    # Every entry of every kind and tool, stored or remembered, and why it is kept or not.
    "entries": """
        SELECT target.name AS target, entry.store_id, entry.kind, entry.key, ref.name AS ref,
               entry.digest, entry.size, entry.state, entry.reason, entry.facts,
               entry.created_at, entry.last_accessed_at, entry.first_seen_at, entry.last_seen_at,
               entry.missing_since, entry.unreferenced_since, entry.used_at, entry.looked_up_at,
               entry.checked_at, entry.content_missing_since
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
    """,
    # Which generation of which index references which blob.
    "blob_uses": """
        SELECT DISTINCT target.name AS target, blob.digest, scope.name AS scope, ref.name AS ref,
               generation.signed, generation.number AS generation, generation.key AS index_key,
               generation.missing_since IS NULL AS is_stored,
               newer.superseded_at IS NOT NULL AS is_superseded
        FROM generation_layer
        JOIN layer ON layer.id = generation_layer.layer_id
        JOIN blob ON blob.id = layer.blob_id
        JOIN generation ON generation.id = generation_layer.generation_id
        JOIN (SELECT generation.id, _SUPERSEDED_AT AS superseded_at FROM generation) AS newer
          ON newer.id = generation.id
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id
    """,
    # Every blob that is stored or that an index references, and why it is kept or not.
    "blobs": """
        SELECT target.name AS target, entry.digest, ref.name AS ref, entry.store_id, entry.size,
               entry.state, entry.reason, entry.facts, entry.created_at, entry.last_accessed_at,
               entry.first_seen_at, entry.last_seen_at, entry.missing_since,
               entry.unreferenced_since
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
        WHERE entry.kind = 'blob'
        UNION ALL
        SELECT target, digest, NULL, NULL, NULL, state, reason, '{"code":"' || reason || '"}',
               NULL, NULL, first_seen_at, last_seen_at, missing_since, NULL
        FROM (
            SELECT target.name AS target, blob.digest, blob.first_seen_at, blob.last_seen_at,
                   blob.missing_since,
                   CASE WHEN blob.missing_since IS NULL THEN 'found' ELSE 'missing' END AS state,
                   CASE WHEN blob.missing_since IS NULL THEN 'found_by_look_up'
                        WHEN blob.content_missing_since IS NOT NULL THEN 'no_content'
                        ELSE 'missing' END AS reason
            FROM blob JOIN target ON target.id = blob.target_id
            WHERE NOT EXISTS (
                SELECT 1 FROM entry
                WHERE entry.target_id = blob.target_id AND entry.digest = blob.digest
                  AND entry.kind = 'blob'))
    """,
    # Every generation of every index, stored or remembered.
    "generations": """
        SELECT target.name AS target, scope.name AS scope, ref.name AS ref,
               generation.number AS generation, generation.signed, generation.key,
               generation.store_id,
               generation.missing_since IS NULL AS is_stored,
               newer.superseded_at IS NOT NULL AS is_superseded,
               generation.violation, length(generation.content) AS size,
               (SELECT count(*) FROM record WHERE record.generation_id = generation.id) AS records,
               (SELECT count(*) FROM record JOIN result ON result.record_id = record.id
                WHERE record.generation_id = generation.id) AS results,
               (SELECT count(DISTINCT layer.blob_id) FROM generation_layer
                JOIN layer ON layer.id = generation_layer.layer_id
                WHERE generation_layer.generation_id = generation.id) AS blobs,
               (SELECT count(DISTINCT layer.blob_id) FROM generation_layer
                JOIN layer ON layer.id = generation_layer.layer_id
                JOIN blob ON blob.id = layer.blob_id
                WHERE generation_layer.generation_id = generation.id
                  AND blob.missing_since IS NOT NULL) AS blobs_missing,
               generation.first_seen_at, generation.last_seen_at, generation.missing_since,
               newer.superseded_at
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
               sum(is_stored) AS generations_stored,
               max(CASE WHEN is_stored THEN generation END) AS newest_generation,
               sum(CASE WHEN is_stored THEN size ELSE 0 END) AS size,
               max(last_seen_at) AS last_seen_at
        FROM generations GROUP BY target, scope, ref, signed
    """,
    # Every run and its counts.
    "runs": """
        SELECT run.id, target.name AS target, run.started_at, run.finished_at, run.status,
               run.dry_run, run.version, run.process, run.entries, run.indexes_read,
               run.indexes_written, run.entries_deleted, run.bytes_deleted, run.blobs_missing,
               run.requests, run.results_usable
        FROM run JOIN target ON target.id = run.target_id
    """,
    # What was stored when each run ended, by state.
    "run_states": """
        SELECT run_state.run_id AS run, run.started_at, target.name AS target, run_state.state,
               run_state.entries, run_state.size
        FROM run_state
        JOIN run ON run.id = run_state.run_id
        JOIN target ON target.id = run.target_id
    """,
    # Everything that a run did or decided to keep, and why.
    "actions": """
        SELECT action.run_id AS run, run.started_at, target.name AS target, action.position,
               action.kind, action.subject, action.ref, action.store_id, action.size,
               action.reason, action.facts, action.outcome, action.outcome_facts
        FROM action
        JOIN run ON run.id = action.run_id
        JOIN target ON target.id = run.target_id
    """,
}


def upgrade() -> None:
    """Make the tables, then the views that people query."""
    _make_roots()
    _make_entries_and_layers()
    _make_generations()
    _make_records()
    _make_schedule()
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query.replace('_SUPERSEDED_AT', _SUPERSEDED_AT)}")


def _make_roots() -> None:
    op.create_table(
        "target",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("blocked_since", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_target"),
        sa.UniqueConstraint("name", name="uq_target_name"),
    )
    op.create_table(
        "blob",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(), nullable=True),
        sa.Column("missing_since", sa.DateTime(), nullable=True),
        sa.Column("checked_at", sa.DateTime(), nullable=True),
        sa.Column("content_missing_since", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_blob_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_blob"),
        sa.UniqueConstraint("target_id", "digest", name="uq_blob_target_id_digest"),
    )
    op.create_table(
        "ref",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
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
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_doubt_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_doubt"),
        sa.UniqueConstraint("target_id", "ref", "key", name="uq_doubt_target_id_ref_key"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("indexes_read", sa.Integer(), nullable=False),
        sa.Column("indexes_written", sa.Integer(), nullable=False),
        sa.Column("entries_deleted", sa.Integer(), nullable=False),
        sa.Column("bytes_deleted", sa.Integer(), nullable=False),
        sa.Column("blobs_missing", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("results_usable", sa.Integer(), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_run_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    op.create_index("ix_run_target_id", "run", ["target_id"])
    op.create_table(
        "run_state",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_run_state_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "state", name="pk_run_state"),
    )

    op.create_table(
        "scope",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_scope_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_scope"),
        sa.UniqueConstraint("target_id", "name", name="uq_scope_target_id_name"),
    )
    op.create_table(
        "action",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("outcome_facts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_action_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_action"),
        sa.UniqueConstraint("run_id", "position", name="uq_action_run_id_position"),
    )


def _make_entries_and_layers() -> None:
    op.create_table(
        "entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("ref_id", sa.Integer(), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("last_accessed_at", sa.DateTime(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(), nullable=False),
        sa.Column("missing_since", sa.DateTime(), nullable=True),
        sa.Column("used_at", sa.DateTime(), nullable=False),
        sa.Column("looked_up_at", sa.DateTime(), nullable=True),
        sa.Column("checked_at", sa.DateTime(), nullable=True),
        sa.Column("content_missing_since", sa.DateTime(), nullable=True),
        sa.Column("unreferenced_since", sa.DateTime(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["ref_id"], ["ref.id"], name="fk_entry_ref_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["target_id"], ["target.id"], name="fk_entry_target_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_entry"),
        sa.UniqueConstraint("target_id", "store_id", name="uq_entry_target_id_store_id"),
    )
    op.create_index("ix_entry_digest", "entry", ["digest"])
    op.create_index("ix_entry_first_seen_at", "entry", ["target_id", "first_seen_at"])
    op.create_index(
        "ix_entry_missing_since",
        "entry",
        ["target_id", "missing_since"],
        sqlite_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_index(
        "ix_entry_content_missing_since",
        "entry",
        ["target_id", "content_missing_since"],
        sqlite_where=sa.text("content_missing_since IS NOT NULL"),
    )
    op.create_index("ix_entry_ref_id", "entry", ["ref_id"])

    op.create_table(
        "layer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("blob_id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("diff_id", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["blob.id"], name="fk_layer_blob_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["layer.id"], name="fk_layer_parent_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_layer"),
    )
    op.create_index("ix_layer_parent_id", "layer", ["parent_id"])
    # SQL holds no two NULLs for equal, but two bottom layers of one blob are the same layer.
    op.create_index(
        "uq_layer_blob_parent",
        "layer",
        ["blob_id", sa.text("coalesce(parent_id, 0)")],
        unique=True,
    )


def _make_generations() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("ref_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=True),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("content_digest", sa.Text(), nullable=False),
        sa.Column("violation", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(), nullable=False),
        sa.Column("missing_since", sa.DateTime(), nullable=True),
        sa.Column("sink", sa.Text(), nullable=True),
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

    op.create_table(
        "cache_index",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("ref_id", sa.Integer(), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("highest", sa.Integer(), nullable=False),
        sa.Column("up_to_date_id", sa.Integer(), nullable=False),
        sa.Column("up_to_date_at", sa.DateTime(), nullable=True),
        sa.Column("marked_at", sa.DateTime(), nullable=True),
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
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["cache_index.id"], name="fk_memory_index_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("index_id", "day", name="pk_memory"),
    )

    op.create_table(
        "generation_layer",
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("layer_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["layer_id"], ["layer.id"], name="fk_generation_layer_layer_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generation.id"],
            name="fk_generation_layer_generation_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("generation_id", "layer_id", name="pk_generation_layer"),
    )
    op.create_index("ix_generation_layer_layer_id", "generation_layer", ["layer_id"])


def _make_records() -> None:
    op.create_table(
        "record",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generation.id"], name="fk_record_generation_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_record"),
        sa.UniqueConstraint("generation_id", "position", name="uq_record_generation_id_position"),
    )
    op.create_index("ix_record_digest", "record", ["digest"])

    op.create_table(
        "link",
        sa.Column("record_id", sa.Integer(), nullable=False),
        sa.Column("input", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["record_id"], ["record.id"], name="fk_link_record_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["record.id"], name="fk_link_source_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("record_id", "input", "source_id", "selector", name="pk_link"),
    )
    op.create_index("ix_link_source_id", "link", ["source_id"])

    op.create_table(
        "result",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.Integer(), nullable=False),
        sa.Column("with_parents", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["record_id"], ["record.id"], name="fk_result_record_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_result"),
    )
    op.create_index("ix_result_record_id", "result", ["record_id"])

    op.create_table(
        "result_layer",
        sa.Column("result_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("layer_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["layer_id"], ["layer.id"], name="fk_result_layer_layer_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["result_id"], ["result.id"], name="fk_result_layer_result_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("result_id", "position", name="pk_result_layer"),
    )
    op.create_index("ix_result_layer_layer_id", "result_layer", ["layer_id"])


def _make_schedule() -> None:
    op.create_table(
        "scheduled",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cache", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("misfire_grace_seconds", sa.Integer(), nullable=False),
        sa.Column("next_run_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("running_since", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("rate_limit_remaining", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_scheduled_run_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_scheduled"),
    )
