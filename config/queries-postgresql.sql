-- The seven queries of queries.sql, for a database on a PostgreSQL server:
--
--     psql -e -d "$URL" -f config/queries-postgresql.sql     # postgresql://USER@HOST/NAME
--
-- The views `entries`, `blobs`, `blob_uses`, `generations`, `scopes`, `runs`, `run_states` and
-- `actions` are for you; the tables below them can change with any version. Sizes are bytes, times
-- are UTC. A `reason` is a code; `facts` contains all its facts as JSON.

-- 1. Which are the largest unreferenced layers, and why are they still there?
SELECT digest, ref, size, unreferenced_since, reason, facts
FROM blobs
WHERE state = 'dangling'
ORDER BY size DESC
LIMIT 10;

-- 2. Which layers do several scopes share? Losing one of these hurts most. The merge needs all of them.
SELECT blob_uses.digest, count(DISTINCT blob_uses.scope) AS scopes,
       string_agg(DISTINCT blob_uses.scope, ',') AS which, coalesce(max(blobs.size), 0) AS size
FROM blob_uses
JOIN blobs ON blobs.target = blob_uses.target AND blobs.digest = blob_uses.digest
WHERE blob_uses.is_stored AND NOT blob_uses.is_superseded AND blobs.missing_since IS NULL
  AND blob_uses.scope <> 'maintained'
GROUP BY blob_uses.target, blob_uses.digest
HAVING count(DISTINCT blob_uses.scope) > 1
ORDER BY scopes DESC, size DESC
LIMIT 10;

-- 3. What was evicted in the week before the last run?
SELECT substr(missing_since, 1, 10) AS day, kind, count(*) AS entries, sum(size) AS size
FROM entries
WHERE state = 'evicted'
  AND missing_since > (
      SELECT to_char(max(started_at)::timestamp - interval '7 days', 'YYYY-MM-DD HH24:MI:SS')
      FROM runs)
GROUP BY day, kind
ORDER BY day DESC, size DESC;

-- 4. Which refs fill the cache, and with what?
SELECT ref, kind, count(*) AS entries, sum(size) AS size, max(last_accessed_at) AS last_used_at
FROM entries
WHERE missing_since IS NULL
GROUP BY ref, kind
ORDER BY size DESC
LIMIT 20;

-- 5. What will be deleted next, and how much space does that free?
SELECT state, substr(unreferenced_since, 1, 19) AS since, count(*) AS entries, sum(size) AS size
FROM entries
WHERE missing_since IS NULL AND unreferenced_since IS NOT NULL
GROUP BY state, since
ORDER BY since, state
LIMIT 20;

-- 6. Which stored indexes reference layers that are gone? Builds that read one do not find these layers.
SELECT scope, ref, generation, results, blobs, blobs_missing
FROM generations
WHERE is_stored AND blobs_missing > 0
ORDER BY blobs_missing DESC, scope, generation DESC
LIMIT 20;

-- 7. What did runs delete in the week before the last run, and why?
SELECT run, started_at, subject, ref, size, reason, facts
FROM actions
WHERE kind = 'delete' AND outcome = 'done'
  AND started_at > (
      SELECT to_char(max(started_at)::timestamp - interval '7 days', 'YYYY-MM-DD HH24:MI:SS')
      FROM runs)
ORDER BY run DESC, size DESC, subject
LIMIT 50;
