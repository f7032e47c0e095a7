CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE lease (
    name TEXT COLLATE "C" NOT NULL, 
    token BIGINT NOT NULL, 
    holder TEXT COLLATE "C" NOT NULL, 
    is_locked BOOLEAN NOT NULL, 
    expires_at BIGINT, 
    CONSTRAINT pk_lease PRIMARY KEY (name)
);

CREATE TABLE allowance (
    name TEXT COLLATE "C" NOT NULL, 
    resets BIGINT NOT NULL, 
    most BIGINT, 
    remaining BIGINT, 
    answered BIGINT NOT NULL, 
    taken BIGINT NOT NULL, 
    reset_at BIGINT, 
    paused_until BIGINT, 
    CONSTRAINT pk_allowance PRIMARY KEY (name)
);

CREATE TABLE ended (
    name TEXT COLLATE "C" NOT NULL, 
    status TEXT COLLATE "C" NOT NULL, 
    number BIGINT NOT NULL, 
    CONSTRAINT pk_ended PRIMARY KEY (name, status)
);

CREATE TABLE target (
    id BIGSERIAL NOT NULL, 
    name TEXT COLLATE "C" NOT NULL, 
    probed_at BIGINT, 
    listed_at BIGINT, 
    idle_run BIGINT, 
    idle_fingerprint BYTEA, 
    idle_since BIGINT, 
    idle_until BIGINT, 
    blocked_since BIGINT, 
    tried TEXT COLLATE "C", 
    CONSTRAINT pk_target PRIMARY KEY (id), 
    CONSTRAINT uq_target_name UNIQUE (name)
);

CREATE TABLE blob (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    digest TEXT COLLATE "C" NOT NULL, 
    first_seen_at BIGINT NOT NULL, 
    is_found BOOLEAN NOT NULL, 
    last_seen_at BIGINT, 
    missing_since BIGINT, 
    checked_at BIGINT, 
    content_missing_since BIGINT, 
    needed_at BIGINT, 
    departure TEXT COLLATE "C", 
    CONSTRAINT pk_blob PRIMARY KEY (id), 
    CONSTRAINT fk_blob_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_blob_target_id_digest UNIQUE (target_id, digest)
);

CREATE INDEX ix_blob_departure ON blob (target_id) WHERE departure IS NOT NULL;

CREATE TABLE ref (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    name TEXT COLLATE "C" NOT NULL, 
    readable BOOLEAN NOT NULL, 
    writable BOOLEAN NOT NULL, 
    CONSTRAINT pk_ref PRIMARY KEY (id), 
    CONSTRAINT fk_ref_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_ref_target_id_name UNIQUE (target_id, name)
);

CREATE TABLE doubt (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    ref TEXT COLLATE "C" NOT NULL, 
    key TEXT COLLATE "C" NOT NULL, 
    cause TEXT COLLATE "C" NOT NULL, 
    since BIGINT NOT NULL, 
    CONSTRAINT pk_doubt PRIMARY KEY (id), 
    CONSTRAINT fk_doubt_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_doubt_target_id_ref_key UNIQUE (target_id, ref, key)
);

CREATE TABLE written (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    key TEXT COLLATE "C" NOT NULL, 
    written_at BIGINT NOT NULL, 
    CONSTRAINT pk_written PRIMARY KEY (id), 
    CONSTRAINT fk_written_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_written_target_id_key UNIQUE (target_id, key)
);

CREATE TABLE run (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    started_at BIGINT NOT NULL, 
    finished_at BIGINT, 
    version TEXT COLLATE "C" NOT NULL, 
    process TEXT COLLATE "C" NOT NULL, 
    dry_run BOOLEAN NOT NULL, 
    has_plan BOOLEAN NOT NULL, 
    status TEXT COLLATE "C" NOT NULL, 
    entries BIGINT NOT NULL, 
    indexes_read BIGINT NOT NULL, 
    indexes_written BIGINT NOT NULL, 
    entries_deleted BIGINT NOT NULL, 
    bytes_freed BIGINT NOT NULL, 
    blobs_missing BIGINT NOT NULL, 
    requests BIGINT NOT NULL, 
    results_usable BIGINT, 
    report BYTEA, 
    same_as BIGINT, 
    CONSTRAINT pk_run PRIMARY KEY (id), 
    CONSTRAINT fk_run_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE INDEX ix_run_target_id ON run (target_id);

CREATE TABLE keep (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    first_run BIGINT NOT NULL, 
    last_run BIGINT, 
    subject TEXT COLLATE "C" NOT NULL, 
    ref TEXT COLLATE "C" NOT NULL, 
    store_id BIGINT, 
    size BIGINT, 
    reason TEXT COLLATE "C" NOT NULL, 
    facts TEXT COLLATE "C" NOT NULL, 
    CONSTRAINT pk_keep PRIMARY KEY (id), 
    CONSTRAINT fk_keep_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE INDEX ix_keep_target_id_last_run ON keep (target_id, last_run);

CREATE TABLE run_state (
    run_id BIGINT NOT NULL, 
    state TEXT COLLATE "C" NOT NULL, 
    entries BIGINT NOT NULL, 
    size BIGINT NOT NULL, 
    CONSTRAINT pk_run_state PRIMARY KEY (run_id, state), 
    CONSTRAINT fk_run_state_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);

CREATE TABLE scope (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    name TEXT COLLATE "C" NOT NULL, 
    CONSTRAINT pk_scope PRIMARY KEY (id), 
    CONSTRAINT fk_scope_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_scope_target_id_name UNIQUE (target_id, name)
);

CREATE TABLE action (
    id BIGSERIAL NOT NULL, 
    run_id BIGINT NOT NULL, 
    position BIGINT NOT NULL, 
    kind TEXT COLLATE "C" NOT NULL, 
    subject TEXT COLLATE "C" NOT NULL, 
    ref TEXT COLLATE "C" NOT NULL, 
    store_id BIGINT, 
    size BIGINT, 
    state TEXT COLLATE "C", 
    rank BIGINT, 
    after TEXT COLLATE "C", 
    reason TEXT COLLATE "C" NOT NULL, 
    facts TEXT COLLATE "C" NOT NULL, 
    outcome TEXT COLLATE "C" NOT NULL, 
    outcome_facts TEXT COLLATE "C" NOT NULL, 
    CONSTRAINT pk_action PRIMARY KEY (id), 
    CONSTRAINT fk_action_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
    CONSTRAINT uq_action_run_id_position UNIQUE (run_id, position)
);

CREATE INDEX ix_action_refused ON action (run_id, store_id) WHERE outcome = 'refused';

CREATE TABLE entry (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    ref_id BIGINT NOT NULL, 
    store_id BIGINT NOT NULL, 
    key TEXT COLLATE "C" NOT NULL, 
    kind TEXT COLLATE "C" NOT NULL, 
    digest TEXT COLLATE "C", 
    size BIGINT NOT NULL, 
    created_at BIGINT NOT NULL, 
    last_accessed_at BIGINT NOT NULL, 
    first_seen_at BIGINT NOT NULL, 
    last_seen_at BIGINT, 
    missing_since BIGINT, 
    used_at BIGINT NOT NULL, 
    looked_up_at BIGINT, 
    checked_at BIGINT, 
    content_missing_since BIGINT, 
    unreferenced_since BIGINT, 
    state TEXT COLLATE "C" NOT NULL, 
    reason TEXT COLLATE "C" NOT NULL, 
    facts TEXT COLLATE "C" NOT NULL, 
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
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    scope_id BIGINT NOT NULL, 
    ref_id BIGINT NOT NULL, 
    key TEXT COLLATE "C" NOT NULL, 
    store_id BIGINT, 
    location TEXT COLLATE "C", 
    number BIGINT NOT NULL, 
    signed BOOLEAN NOT NULL, 
    content BYTEA, 
    content_digest TEXT COLLATE "C" NOT NULL, 
    size BIGINT, 
    records BIGINT NOT NULL, 
    results BIGINT NOT NULL, 
    violation TEXT COLLATE "C", 
    first_seen_at BIGINT NOT NULL, 
    last_seen_at BIGINT, 
    missing_since BIGINT, 
    sink TEXT COLLATE "C", 
    CONSTRAINT pk_generation PRIMARY KEY (id), 
    CONSTRAINT fk_generation_ref_id FOREIGN KEY(ref_id) REFERENCES ref (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_scope_id FOREIGN KEY(scope_id) REFERENCES scope (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_generation_ref_id_key_content_digest UNIQUE (ref_id, key, content_digest)
);

CREATE INDEX ix_generation_target_id ON generation (target_id);

CREATE INDEX ix_generation_scope_id_ref_id ON generation (scope_id, ref_id);

CREATE TABLE cache_index (
    id BIGSERIAL NOT NULL, 
    target_id BIGINT NOT NULL, 
    ref_id BIGINT NOT NULL, 
    scope_id BIGINT NOT NULL, 
    signed BOOLEAN NOT NULL, 
    highest BIGINT NOT NULL, 
    up_to_date_id BIGINT NOT NULL, 
    up_to_date_at BIGINT, 
    marked_at BIGINT, 
    forgotten_at BIGINT, 
    recent TEXT COLLATE "C", 
    CONSTRAINT pk_cache_index PRIMARY KEY (id), 
    CONSTRAINT fk_cache_index_ref_id FOREIGN KEY(ref_id) REFERENCES ref (id) ON DELETE CASCADE, 
    CONSTRAINT fk_cache_index_scope_id FOREIGN KEY(scope_id) REFERENCES scope (id) ON DELETE CASCADE, 
    CONSTRAINT fk_cache_index_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE, 
    CONSTRAINT uq_cache_index_ref_id_scope_id_signed UNIQUE (ref_id, scope_id, signed)
);

CREATE INDEX ix_cache_index_target_id ON cache_index (target_id);

CREATE INDEX ix_cache_index_scope_id ON cache_index (scope_id);

CREATE TABLE memory (
    index_id BIGINT NOT NULL, 
    day TEXT COLLATE "C" NOT NULL, 
    content BYTEA NOT NULL, 
    CONSTRAINT pk_memory PRIMARY KEY (index_id, day), 
    CONSTRAINT fk_memory_index_id FOREIGN KEY(index_id) REFERENCES cache_index (id) ON DELETE CASCADE
);

CREATE TABLE generation_blob (
    generation_id BIGINT NOT NULL, 
    blob_id BIGINT NOT NULL, 
    CONSTRAINT pk_generation_blob PRIMARY KEY (generation_id, blob_id), 
    CONSTRAINT fk_generation_blob_blob_id FOREIGN KEY(blob_id) REFERENCES blob (id) ON DELETE CASCADE, 
    CONSTRAINT fk_generation_blob_generation_id FOREIGN KEY(generation_id) REFERENCES generation (id) ON DELETE CASCADE
);

CREATE INDEX ix_generation_blob_blob_id ON generation_blob (blob_id);

CREATE TABLE scheduled (
    name TEXT COLLATE "C" NOT NULL, 
    position BIGINT NOT NULL, 
    cache TEXT COLLATE "C" NOT NULL, 
    rule TEXT COLLATE "C" NOT NULL, 
    misfire_grace_seconds BIGINT NOT NULL, 
    next_run_at BIGINT NOT NULL, 
    due_at BIGINT NOT NULL, 
    target TEXT COLLATE "C", 
    running_since BIGINT, 
    finished_at BIGINT, 
    status TEXT COLLATE "C", 
    problem TEXT COLLATE "C", 
    run_id BIGINT, 
    failures BIGINT NOT NULL, 
    rate_limit_remaining BIGINT, 
    CONSTRAINT pk_scheduled PRIMARY KEY (name), 
    CONSTRAINT fk_scheduled_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE SET NULL
);

CREATE TABLE summary (
    target_id BIGINT NOT NULL, 
    run_id BIGINT NOT NULL, 
    status TEXT COLLATE "C" NOT NULL, 
    level TEXT COLLATE "C", 
    message TEXT COLLATE "C" NOT NULL, 
    used BIGINT NOT NULL, 
    quota BIGINT, 
    results BIGINT, 
    space BYTEA, 
    succeeded_at BIGINT, 
    CONSTRAINT pk_summary PRIMARY KEY (target_id), 
    CONSTRAINT fk_summary_target_id FOREIGN KEY(target_id) REFERENCES target (id) ON DELETE CASCADE
);

CREATE TABLE discovery (
    name TEXT COLLATE "C" NOT NULL, 
    source TEXT COLLATE "C" NOT NULL, 
    searched_at BIGINT NOT NULL, 
    completed_at BIGINT, 
    problem TEXT COLLATE "C", 
    doubted_since BIGINT, 
    CONSTRAINT pk_discovery PRIMARY KEY (name)
);

CREATE TABLE discovered (
    source TEXT COLLATE "C" NOT NULL, 
    store TEXT COLLATE "C" NOT NULL, 
    repository TEXT COLLATE "C" NOT NULL, 
    name TEXT COLLATE "C" NOT NULL, 
    found_at BIGINT NOT NULL, 
    gone_since BIGINT, 
    target TEXT COLLATE "C", 
    CONSTRAINT pk_discovered PRIMARY KEY (source, store, repository)
);

CREATE VIEW entries AS 
        SELECT target.name AS target, entry.store_id, entry.kind, entry.key, ref.name AS ref,
               entry.digest, entry.size, entry.state, entry.reason, entry.facts,
               to_char(timestamp 'epoch' + (entry.created_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS created_at, to_char(timestamp 'epoch' + (entry.last_accessed_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_accessed_at, to_char(timestamp 'epoch' + (entry.first_seen_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS first_seen_at,
               to_char(timestamp 'epoch' + (coalesce(entry.last_seen_at, target.listed_at)) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_seen_at,
               to_char(timestamp 'epoch' + (entry.missing_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS missing_since, to_char(timestamp 'epoch' + (entry.unreferenced_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS unreferenced_since, to_char(timestamp 'epoch' + (entry.used_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS used_at,
               to_char(timestamp 'epoch' + (entry.looked_up_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS looked_up_at, to_char(timestamp 'epoch' + (entry.checked_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS checked_at, to_char(timestamp 'epoch' + (entry.content_missing_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS content_missing_since
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
               entry.state, entry.reason, entry.facts, to_char(timestamp 'epoch' + (entry.created_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS created_at, to_char(timestamp 'epoch' + (entry.last_accessed_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_accessed_at,
               to_char(timestamp 'epoch' + (entry.first_seen_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS first_seen_at,
               to_char(timestamp 'epoch' + (coalesce(entry.last_seen_at, target.listed_at)) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_seen_at,
               to_char(timestamp 'epoch' + (entry.missing_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS missing_since, to_char(timestamp 'epoch' + (entry.unreferenced_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS unreferenced_since
        FROM entry JOIN ref ON ref.id = entry.ref_id JOIN target ON target.id = entry.target_id
        WHERE entry.kind = 'blob'
        UNION ALL
        SELECT target, digest, NULL, NULL, NULL, state, reason, '{"code":"' || reason || '"}',
               NULL, NULL, first_seen_at, last_seen_at, missing_since, NULL
        FROM (
            SELECT target.name AS target, blob.digest, to_char(timestamp 'epoch' + (blob.first_seen_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS first_seen_at,
                   to_char(timestamp 'epoch' + (CASE WHEN blob.is_found THEN target.probed_at ELSE blob.last_seen_at END) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_seen_at,
                   to_char(timestamp 'epoch' + (blob.missing_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS missing_since,
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
               to_char(timestamp 'epoch' + (generation.first_seen_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS first_seen_at,
               to_char(timestamp 'epoch' + (coalesce(generation.last_seen_at, target.probed_at)) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS last_seen_at,
               to_char(timestamp 'epoch' + (generation.missing_since) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS missing_since, to_char(timestamp 'epoch' + (newer.superseded_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS superseded_at
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
        SELECT run.id, target.name AS target, to_char(timestamp 'epoch' + (run.started_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS started_at, to_char(timestamp 'epoch' + (run.finished_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS finished_at, run.status,
               run.dry_run, run.version, run.process, run.entries, run.indexes_read,
               run.indexes_written, run.entries_deleted, run.bytes_freed, run.blobs_missing,
               run.requests, run.results_usable
        FROM run JOIN target ON target.id = run.target_id;

CREATE VIEW run_states AS 
        SELECT run_state.run_id AS run, to_char(timestamp 'epoch' + (run.started_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS started_at, target.name AS target, run_state.state,
               run_state.entries, run_state.size
        FROM run_state
        JOIN run ON run.id = run_state.run_id
        JOIN target ON target.id = run.target_id;

CREATE VIEW actions AS 
        SELECT action.run_id AS run, to_char(timestamp 'epoch' + (run.started_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS started_at, target.name AS target, action.position,
               action.kind, action.subject, action.ref, action.store_id, action.size,
               action.reason, action.facts, action.outcome, action.outcome_facts
        FROM action
        JOIN run ON run.id = action.run_id
        JOIN target ON target.id = run.target_id
        UNION ALL
        SELECT run.id, to_char(timestamp 'epoch' + (run.started_at) * interval '1 microsecond', 'YYYY-MM-DD HH24:MI:SS.US') AS started_at, target.name,
               (SELECT count(*) FROM action WHERE action.run_id = run.id) + keep.id,
               'keep', keep.subject, keep.ref, keep.store_id, keep.size,
               keep.reason, keep.facts, 'kept', '{"code":"kept"}'
        FROM keep
        JOIN target ON target.id = keep.target_id
        JOIN run ON run.target_id = keep.target_id AND run.has_plan
         AND run.id BETWEEN keep.first_run AND coalesce(keep.last_run, run.id);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

