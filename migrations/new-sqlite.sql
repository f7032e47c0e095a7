CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE lease (
    name TEXT NOT NULL, 
    token INTEGER NOT NULL, 
    holder TEXT NOT NULL, 
    is_locked BOOLEAN NOT NULL, 
    expires_at INTEGER, 
    CONSTRAINT pk_lease PRIMARY KEY (name)
);

CREATE TABLE allowance (
    name TEXT NOT NULL, 
    resets INTEGER NOT NULL, 
    most INTEGER, 
    remaining INTEGER, 
    answered INTEGER NOT NULL, 
    taken INTEGER NOT NULL, 
    reset_at INTEGER, 
    paused_until INTEGER, 
    CONSTRAINT pk_allowance PRIMARY KEY (name)
);

CREATE TABLE ended (
    name TEXT NOT NULL, 
    status TEXT NOT NULL, 
    number INTEGER NOT NULL, 
    CONSTRAINT pk_ended PRIMARY KEY (name, status)
);

CREATE TABLE target (
    id INTEGER NOT NULL, 
    name TEXT NOT NULL, 
    probed_at INTEGER, 
    listed_at INTEGER, 
    idle_run INTEGER, 
    idle_fingerprint BLOB, 
    idle_since INTEGER, 
    idle_until INTEGER, 
    blocked_since INTEGER, 
    tried TEXT, 
    CONSTRAINT pk_target PRIMARY KEY (id), 
    CONSTRAINT uq_target_name UNIQUE (name)
);

CREATE TABLE blob (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    digest TEXT NOT NULL, 
    first_seen_at INTEGER NOT NULL, 
    is_found BOOLEAN NOT NULL, 
    last_seen_at INTEGER, 
    missing_since INTEGER, 
    checked_at INTEGER, 
    content_missing_since INTEGER, 
    needed_at INTEGER, 
    departure TEXT, 
    CONSTRAINT pk_blob PRIMARY KEY (id), 
    CONSTRAINT fk_blob_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_blob_target_id_digest UNIQUE (target_id, digest)
);

CREATE INDEX ix_blob_departure ON blob (target_id) WHERE departure IS NOT NULL;

CREATE TABLE ref (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    name TEXT NOT NULL, 
    readable BOOLEAN NOT NULL, 
    writable BOOLEAN NOT NULL, 
    CONSTRAINT pk_ref PRIMARY KEY (id), 
    CONSTRAINT fk_ref_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_ref_target_id_name UNIQUE (target_id, name)
);

CREATE TABLE doubt (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    ref TEXT NOT NULL, 
    "key" TEXT NOT NULL, 
    cause TEXT NOT NULL, 
    since INTEGER NOT NULL, 
    CONSTRAINT pk_doubt PRIMARY KEY (id), 
    CONSTRAINT fk_doubt_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_doubt_target_id_ref_key UNIQUE (target_id, ref, "key")
);

CREATE TABLE written (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    "key" TEXT NOT NULL, 
    written_at INTEGER NOT NULL, 
    CONSTRAINT pk_written PRIMARY KEY (id), 
    CONSTRAINT fk_written_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_written_target_id_key UNIQUE (target_id, "key")
);

CREATE TABLE run (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    started_at INTEGER NOT NULL, 
    finished_at INTEGER, 
    version TEXT NOT NULL, 
    process TEXT NOT NULL, 
    dry_run BOOLEAN NOT NULL, 
    has_plan BOOLEAN NOT NULL, 
    status TEXT NOT NULL, 
    entries INTEGER NOT NULL, 
    indexes_read INTEGER NOT NULL, 
    indexes_written INTEGER NOT NULL, 
    entries_deleted INTEGER NOT NULL, 
    bytes_freed INTEGER NOT NULL, 
    blobs_missing INTEGER NOT NULL, 
    requests INTEGER NOT NULL, 
    results_usable INTEGER, 
    report BLOB, 
    same_as INTEGER, 
    CONSTRAINT pk_run PRIMARY KEY (id), 
    CONSTRAINT fk_run_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE INDEX ix_run_target_id ON run (target_id);

CREATE TABLE keep (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    first_run INTEGER NOT NULL, 
    last_run INTEGER, 
    subject TEXT NOT NULL, 
    ref TEXT NOT NULL, 
    store_id INTEGER, 
    size INTEGER, 
    reason TEXT NOT NULL, 
    facts TEXT NOT NULL, 
    CONSTRAINT pk_keep PRIMARY KEY (id), 
    CONSTRAINT fk_keep_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE INDEX ix_keep_target_id_last_run ON keep (target_id, last_run);

CREATE TABLE run_state (
    run_id INTEGER NOT NULL, 
    state TEXT NOT NULL, 
    entries INTEGER NOT NULL, 
    size INTEGER NOT NULL, 
    CONSTRAINT pk_run_state PRIMARY KEY (run_id, state), 
    CONSTRAINT fk_run_state_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);

CREATE TABLE scope (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    name TEXT NOT NULL, 
    CONSTRAINT pk_scope PRIMARY KEY (id), 
    CONSTRAINT fk_scope_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_scope_target_id_name UNIQUE (target_id, name)
);

CREATE TABLE action (
    id INTEGER NOT NULL, 
    run_id INTEGER NOT NULL, 
    position INTEGER NOT NULL, 
    kind TEXT NOT NULL, 
    subject TEXT NOT NULL, 
    ref TEXT NOT NULL, 
    store_id INTEGER, 
    size INTEGER, 
    state TEXT, 
    rank INTEGER, 
    "after" TEXT, 
    reason TEXT NOT NULL, 
    facts TEXT NOT NULL, 
    outcome TEXT NOT NULL, 
    outcome_facts TEXT NOT NULL, 
    CONSTRAINT pk_action PRIMARY KEY (id), 
    CONSTRAINT fk_action_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
    CONSTRAINT uq_action_run_id_position UNIQUE (run_id, position)
);

CREATE INDEX ix_action_refused ON action (run_id, store_id) WHERE outcome = 'refused';

CREATE TABLE entry (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    ref_id INTEGER NOT NULL, 
    store_id INTEGER NOT NULL, 
    "key" TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    digest TEXT, 
    size INTEGER NOT NULL, 
    created_at INTEGER NOT NULL, 
    last_accessed_at INTEGER NOT NULL, 
    first_seen_at INTEGER NOT NULL, 
    last_seen_at INTEGER, 
    missing_since INTEGER, 
    used_at INTEGER NOT NULL, 
    looked_up_at INTEGER, 
    checked_at INTEGER, 
    content_missing_since INTEGER, 
    unreferenced_since INTEGER, 
    state TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    facts TEXT NOT NULL, 
    CONSTRAINT pk_entry PRIMARY KEY (id), 
    CONSTRAINT fk_entry_ref_id FOREIGN KEY(ref_id) REFERENCES ref (id) ON DELETE CASCADE, 
    CONSTRAINT fk_entry_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_entry_target_id_store_id UNIQUE (target_id, store_id)
);

CREATE INDEX ix_entry_digest ON entry (target_id, digest);

CREATE INDEX ix_entry_first_seen_at ON entry (target_id, first_seen_at);

CREATE INDEX ix_entry_missing_since ON entry (target_id, missing_since) WHERE missing_since IS NOT NULL;

CREATE INDEX ix_entry_content_missing_since ON entry (target_id, content_missing_since) WHERE content_missing_since IS NOT NULL;

CREATE INDEX ix_entry_ref_id ON entry (ref_id);

CREATE TABLE generation (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    scope_id INTEGER NOT NULL, 
    ref_id INTEGER NOT NULL, 
    "key" TEXT NOT NULL, 
    store_id INTEGER, 
    location TEXT, 
    number INTEGER NOT NULL, 
    signed BOOLEAN NOT NULL, 
    content BLOB, 
    content_digest TEXT NOT NULL, 
    size INTEGER, 
    records INTEGER NOT NULL, 
    results INTEGER NOT NULL, 
    violation TEXT, 
    first_seen_at INTEGER NOT NULL, 
    last_seen_at INTEGER, 
    missing_since INTEGER, 
    sink TEXT, 
    CONSTRAINT pk_generation PRIMARY KEY (id), 
    CONSTRAINT fk_generation_ref_id FOREIGN KEY(ref_id) REFERENCES ref (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_scope_id FOREIGN KEY(scope_id) REFERENCES scope (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_generation_ref_id_key_content_digest UNIQUE (ref_id, "key", content_digest)
);

CREATE INDEX ix_generation_target_id ON generation (target_id);

CREATE INDEX ix_generation_scope_id_ref_id ON generation (scope_id, ref_id);

CREATE TABLE cache_index (
    id INTEGER NOT NULL, 
    target_id INTEGER NOT NULL, 
    ref_id INTEGER NOT NULL, 
    scope_id INTEGER NOT NULL, 
    signed BOOLEAN NOT NULL, 
    highest INTEGER NOT NULL, 
    up_to_date_id INTEGER NOT NULL, 
    up_to_date_at INTEGER, 
    marked_at INTEGER, 
    forgotten_at INTEGER, 
    recent TEXT, 
    CONSTRAINT pk_cache_index PRIMARY KEY (id), 
    CONSTRAINT fk_cache_index_ref_id FOREIGN KEY(ref_id) REFERENCES ref (id) ON DELETE CASCADE, 
    CONSTRAINT fk_cache_index_scope_id FOREIGN KEY(scope_id) REFERENCES scope (id) ON DELETE CASCADE, 
    CONSTRAINT fk_cache_index_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_cache_index_ref_id_scope_id_signed UNIQUE (ref_id, scope_id, signed)
);

CREATE INDEX ix_cache_index_target_id ON cache_index (target_id);

CREATE INDEX ix_cache_index_scope_id ON cache_index (scope_id);

CREATE TABLE memory (
    index_id INTEGER NOT NULL, 
    day TEXT NOT NULL, 
    content BLOB NOT NULL, 
    CONSTRAINT pk_memory PRIMARY KEY (index_id, day), 
    CONSTRAINT fk_memory_index_id FOREIGN KEY(index_id) REFERENCES cache_index (id) ON DELETE CASCADE
);

CREATE TABLE generation_blob (
    generation_id INTEGER NOT NULL, 
    blob_id INTEGER NOT NULL, 
    CONSTRAINT pk_generation_blob PRIMARY KEY (generation_id, blob_id), 
    CONSTRAINT fk_generation_blob_blob_id FOREIGN KEY(blob_id) REFERENCES blob (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_blob_generation_id FOREIGN KEY(generation_id) REFERENCES generation (id) ON DELETE CASCADE
)
 WITHOUT ROWID;

CREATE INDEX ix_generation_blob_blob_id ON generation_blob (blob_id);

CREATE TABLE scheduled (
    name TEXT NOT NULL, 
    position INTEGER NOT NULL, 
    cache TEXT NOT NULL, 
    rule TEXT NOT NULL, 
    misfire_grace_seconds INTEGER NOT NULL, 
    next_run_at INTEGER NOT NULL, 
    due_at INTEGER NOT NULL, 
    target TEXT, 
    running_since INTEGER, 
    finished_at INTEGER, 
    status TEXT, 
    problem TEXT, 
    run_id INTEGER, 
    failures INTEGER NOT NULL, 
    rate_limit_remaining INTEGER, 
    CONSTRAINT pk_scheduled PRIMARY KEY (name), 
    CONSTRAINT fk_scheduled_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE SET NULL
);

CREATE TABLE summary (
    target_id INTEGER NOT NULL, 
    run_id INTEGER NOT NULL, 
    status TEXT NOT NULL, 
    level TEXT, 
    message TEXT NOT NULL, 
    used INTEGER NOT NULL, 
    quota INTEGER, 
    results INTEGER, 
    space BLOB, 
    succeeded_at INTEGER, 
    CONSTRAINT pk_summary PRIMARY KEY (target_id), 
    CONSTRAINT fk_summary_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE TABLE discovery (
    name TEXT NOT NULL, 
    source TEXT NOT NULL, 
    searched_at INTEGER NOT NULL, 
    completed_at INTEGER, 
    problem TEXT, 
    doubted_since INTEGER, 
    CONSTRAINT pk_discovery PRIMARY KEY (name)
);

CREATE TABLE discovered (
    source TEXT NOT NULL, 
    store TEXT NOT NULL, 
    repository TEXT NOT NULL, 
    name TEXT NOT NULL, 
    found_at INTEGER NOT NULL, 
    gone_since INTEGER, 
    target TEXT, 
    CONSTRAINT pk_discovered PRIMARY KEY (source, store, repository)
);

CREATE VIEW entries AS 
        SELECT target.name AS target, entry.store_id, entry.kind, entry.key, ref.name AS ref,
               entry.digest, entry.size, entry.state, entry.reason, entry.facts,
               strftime('%Y-%m-%d %H:%M:%S', (((entry.created_at) - (((entry.created_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.created_at) % 1000000 + 1000000) % 1000000)) AS created_at, strftime('%Y-%m-%d %H:%M:%S', (((entry.last_accessed_at) - (((entry.last_accessed_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.last_accessed_at) % 1000000 + 1000000) % 1000000)) AS last_accessed_at, strftime('%Y-%m-%d %H:%M:%S', (((entry.first_seen_at) - (((entry.first_seen_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.first_seen_at) % 1000000 + 1000000) % 1000000)) AS first_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((coalesce(entry.last_seen_at, target.listed_at)) - (((coalesce(entry.last_seen_at, target.listed_at)) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((coalesce(entry.last_seen_at, target.listed_at)) % 1000000 + 1000000) % 1000000)) AS last_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((entry.missing_since) - (((entry.missing_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.missing_since) % 1000000 + 1000000) % 1000000)) AS missing_since, strftime('%Y-%m-%d %H:%M:%S', (((entry.unreferenced_since) - (((entry.unreferenced_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.unreferenced_since) % 1000000 + 1000000) % 1000000)) AS unreferenced_since, strftime('%Y-%m-%d %H:%M:%S', (((entry.used_at) - (((entry.used_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.used_at) % 1000000 + 1000000) % 1000000)) AS used_at,
               strftime('%Y-%m-%d %H:%M:%S', (((entry.looked_up_at) - (((entry.looked_up_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.looked_up_at) % 1000000 + 1000000) % 1000000)) AS looked_up_at, strftime('%Y-%m-%d %H:%M:%S', (((entry.checked_at) - (((entry.checked_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.checked_at) % 1000000 + 1000000) % 1000000)) AS checked_at, strftime('%Y-%m-%d %H:%M:%S', (((entry.content_missing_since) - (((entry.content_missing_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.content_missing_since) % 1000000 + 1000000) % 1000000)) AS content_missing_since
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id;

CREATE VIEW blob_uses AS 
        SELECT target.name AS target, blob.digest, scope.name AS scope, ref.name AS ref,
               generation.signed, generation.number AS generation, generation.key AS index_key,
               generation.missing_since IS NULL AS is_stored,
               newer.superseded_at IS NOT NULL AS is_superseded
        FROM generation_blob
        JOIN blob ON blob.id = generation_blob.blob_id
        JOIN generation ON generation.id = generation_blob.generation_id
        JOIN (SELECT generation.id, 
    CASE WHEN NOT generation.signed THEN
        min(CASE WHEN generation.missing_since IS NULL THEN generation.first_seen_at END) OVER (
            PARTITION BY generation.ref_id, generation.scope_id, generation.signed
            ORDER BY generation.number, generation.id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
    END
 AS superseded_at FROM generation) AS newer
          ON newer.id = generation.id
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id;

CREATE VIEW blobs AS 
        SELECT target.name AS target, entry.digest, ref.name AS ref, entry.store_id, entry.size,
               entry.state, entry.reason, entry.facts, strftime('%Y-%m-%d %H:%M:%S', (((entry.created_at) - (((entry.created_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.created_at) % 1000000 + 1000000) % 1000000)) AS created_at, strftime('%Y-%m-%d %H:%M:%S', (((entry.last_accessed_at) - (((entry.last_accessed_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.last_accessed_at) % 1000000 + 1000000) % 1000000)) AS last_accessed_at,
               strftime('%Y-%m-%d %H:%M:%S', (((entry.first_seen_at) - (((entry.first_seen_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.first_seen_at) % 1000000 + 1000000) % 1000000)) AS first_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((coalesce(entry.last_seen_at, target.listed_at)) - (((coalesce(entry.last_seen_at, target.listed_at)) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((coalesce(entry.last_seen_at, target.listed_at)) % 1000000 + 1000000) % 1000000)) AS last_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((entry.missing_since) - (((entry.missing_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.missing_since) % 1000000 + 1000000) % 1000000)) AS missing_since, strftime('%Y-%m-%d %H:%M:%S', (((entry.unreferenced_since) - (((entry.unreferenced_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((entry.unreferenced_since) % 1000000 + 1000000) % 1000000)) AS unreferenced_since
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
        WHERE entry.kind = 'blob'
        UNION ALL
        SELECT target, digest, NULL, NULL, NULL, state, reason, '{"code":"' || reason || '"}',
               NULL, NULL, first_seen_at, last_seen_at, missing_since, NULL
        FROM (
            SELECT target.name AS target, blob.digest, strftime('%Y-%m-%d %H:%M:%S', (((blob.first_seen_at) - (((blob.first_seen_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((blob.first_seen_at) % 1000000 + 1000000) % 1000000)) AS first_seen_at,
                   strftime('%Y-%m-%d %H:%M:%S', (((CASE WHEN blob.is_found THEN target.probed_at ELSE blob.last_seen_at END) - (((CASE WHEN blob.is_found THEN target.probed_at ELSE blob.last_seen_at END) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((CASE WHEN blob.is_found THEN target.probed_at ELSE blob.last_seen_at END) % 1000000 + 1000000) % 1000000)) AS last_seen_at,
                   strftime('%Y-%m-%d %H:%M:%S', (((blob.missing_since) - (((blob.missing_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((blob.missing_since) % 1000000 + 1000000) % 1000000)) AS missing_since,
                   CASE WHEN blob.missing_since IS NULL THEN 'found' ELSE 'missing' END AS state,
                   CASE WHEN blob.missing_since IS NULL THEN 'found_by_look_up'
                        WHEN blob.content_missing_since IS NOT NULL THEN 'no_content'
                        ELSE 'missing' END AS reason
            FROM blob JOIN target ON target.id = blob.target_id
            WHERE NOT EXISTS (
                SELECT 1 FROM entry
                WHERE entry.target_id = blob.target_id AND entry.digest = blob.digest
                  AND entry.kind = 'blob')) AS unlisted;

CREATE VIEW generations AS 
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
               strftime('%Y-%m-%d %H:%M:%S', (((generation.first_seen_at) - (((generation.first_seen_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((generation.first_seen_at) % 1000000 + 1000000) % 1000000)) AS first_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((coalesce(generation.last_seen_at, target.probed_at)) - (((coalesce(generation.last_seen_at, target.probed_at)) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((coalesce(generation.last_seen_at, target.probed_at)) % 1000000 + 1000000) % 1000000)) AS last_seen_at,
               strftime('%Y-%m-%d %H:%M:%S', (((generation.missing_since) - (((generation.missing_since) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((generation.missing_since) % 1000000 + 1000000) % 1000000)) AS missing_since, strftime('%Y-%m-%d %H:%M:%S', (((newer.superseded_at) - (((newer.superseded_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((newer.superseded_at) % 1000000 + 1000000) % 1000000)) AS superseded_at
        FROM generation
        JOIN (SELECT generation.id, 
    CASE WHEN NOT generation.signed THEN
        min(CASE WHEN generation.missing_since IS NULL THEN generation.first_seen_at END) OVER (
            PARTITION BY generation.ref_id, generation.scope_id, generation.signed
            ORDER BY generation.number, generation.id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
    END
 AS superseded_at FROM generation) AS newer
          ON newer.id = generation.id
        JOIN target ON target.id = generation.target_id
        JOIN scope ON scope.id = generation.scope_id
        JOIN ref ON ref.id = generation.ref_id;

CREATE VIEW scopes AS 
        SELECT target, scope, ref, signed, count(*) AS generations,
               count(CASE WHEN is_stored THEN 1 END) AS generations_stored,
               max(CASE WHEN is_stored THEN generation END) AS newest_generation,
               sum(CASE WHEN is_stored THEN size ELSE 0 END) AS size,
               max(last_seen_at) AS last_seen_at
        FROM generations GROUP BY target, scope, ref, signed;

CREATE VIEW runs AS 
        SELECT run.id, target.name AS target, strftime('%Y-%m-%d %H:%M:%S', (((run.started_at) - (((run.started_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((run.started_at) % 1000000 + 1000000) % 1000000)) AS started_at, strftime('%Y-%m-%d %H:%M:%S', (((run.finished_at) - (((run.finished_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((run.finished_at) % 1000000 + 1000000) % 1000000)) AS finished_at, run.status,
               run.dry_run, run.version, run.process, run.entries, run.indexes_read,
               run.indexes_written, run.entries_deleted, run.bytes_freed, run.blobs_missing,
               run.requests, run.results_usable
        FROM run JOIN target ON target.id = run.target_id;

CREATE VIEW run_states AS 
        SELECT run_state.run_id AS run, strftime('%Y-%m-%d %H:%M:%S', (((run.started_at) - (((run.started_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((run.started_at) % 1000000 + 1000000) % 1000000)) AS started_at, target.name AS target, run_state.state,
               run_state.entries, run_state.size
        FROM run_state
        JOIN run ON run.id = run_state.run_id
        JOIN target ON target.id = run.target_id;

CREATE VIEW actions AS 
        SELECT action.run_id AS run, strftime('%Y-%m-%d %H:%M:%S', (((run.started_at) - (((run.started_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((run.started_at) % 1000000 + 1000000) % 1000000)) AS started_at, target.name AS target, action.position,
               action.kind, action.subject, action.ref, action.store_id, action.size,
               action.reason, action.facts, action.outcome, action.outcome_facts
        FROM action
        JOIN run ON run.id = action.run_id
        JOIN target ON target.id = run.target_id
        UNION ALL
        SELECT run.id, strftime('%Y-%m-%d %H:%M:%S', (((run.started_at) - (((run.started_at) % 1000000 + 1000000) % 1000000)) / 1000000), 'unixepoch') || printf('.%06d', (((run.started_at) % 1000000 + 1000000) % 1000000)) AS started_at, target.name,
               (SELECT count(*) FROM action WHERE action.run_id = run.id) + keep.id,
               'keep', keep.subject, keep.ref, keep.store_id, keep.size,
               keep.reason, keep.facts, 'kept', '{"code":"kept"}'
        FROM keep
        JOIN target ON target.id = keep.target_id
        JOIN run ON run.target_id = keep.target_id AND run.has_plan
         AND run.id BETWEEN keep.first_run AND coalesce(keep.last_run, run.id);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;

