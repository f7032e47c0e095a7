"""Why an entry is kept or will go: from the database alone."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, TextClause, func, select, text, union

from maintainer.errors import MaintainerError
from maintainer.graph.models import (
    CARRIED_OUT,
    ActionRow,
    BlobRow,
    EntryRow,
    ManifestRow,
    RefRow,
    RunRow,
    Target,
    UtcDateTime,
)
from maintainer.model.reason import Reason
from maintainer.report.reasons import format_reason
from maintainer.text import is_unicode, printable

_SHORT_DIGEST = re.compile(r"(sha256:|sha384:|sha512:)?([0-9a-f]{1,128})", re.ASCII)
_FEWEST_DIGITS = 6
_DEFAULT_GRACE = timedelta(hours=24)
_NAMED = 3


class Sighting(msgspec.Struct, frozen=True):
    """An entry that is the subject, stored or remembered."""

    key: str
    ref: str
    size: int
    """Bytes."""
    state: str
    reason: Reason
    sentence: str
    """The reason in words."""
    created_at: datetime
    last_accessed_at: datetime
    unneeded_since: datetime | None
    missing_since: datetime | None
    deleted_by: int | None
    """The run that deleted it."""


class Use(msgspec.Struct, frozen=True):
    """An index whose live results need the subject, or that once named it."""

    key: str
    ref: str
    is_stored: bool
    results: int
    """The live results that need it."""
    last_seen_at: datetime


class Step(msgspec.Struct, frozen=True):
    """One step of the way from an index to a blob."""

    kind: str
    """`record`, `result` or `layer`."""
    name: str
    size: int | None = None
    """Bytes of a layer."""


class Explanation(msgspec.Struct, frozen=True):
    """All that the database says of one entry of a cache."""

    target: str
    """The name of the cache."""
    subject: str
    """A key, or the digest of a blob."""
    kind: str
    """`blob`, `index`, `signature` or `foreign`."""
    sightings: tuple[Sighting, ...]
    """The newest first; none for a blob that was never listed."""
    missing_since: datetime | None
    """Of a blob that an index names: since when it is known not to exist."""
    uses: tuple[Use, ...]
    """The indexes that need it, those that are stored first."""
    way: tuple[Step, ...]
    """From the first of those indexes to it: records, a result, and layers from the bottom up."""
    last_named: Use | None
    """If nothing needs it: the index that was the last to name it."""
    grace: timedelta
    """As in the last run."""


def explain(connection: Connection, asked: str) -> tuple[Explanation, ...]:
    """Tell why an entry is kept or will go, in each cache that has it, by the caches' names.

    Raises MaintainerError if the database knows none.
    """
    found = _find(connection, asked)
    named = select(Target.name, Target.id).where(Target.id.in_(found)).order_by(Target.name)
    return tuple(
        _explain(connection, target, target_id, *found[target_id])
        for target, target_id in connection.execute(named).all()
    )


def _explain(
    connection: Connection, target: str, target_id: int, kind: str, subject: str
) -> Explanation:
    digest = subject if kind == "blob" else None
    uses = _uses(connection, target_id, digest) if digest else []
    way = _way(connection, target_id, digest, uses[0][0]) if digest and uses else ()
    last = _last_named(connection, target_id, digest) if digest and not uses else None
    return Explanation(
        target=target,
        subject=subject,
        kind=kind,
        sightings=_sightings(connection, target_id, kind, subject),
        missing_since=_missing_since(connection, target_id, digest),
        uses=tuple(use for _, use in uses),
        way=way,
        last_named=last,
        grace=_grace(connection, target_id),
    )


def _find(connection: Connection, asked: str) -> dict[int, tuple[str, str]]:
    """Find what is meant: a key, a digest, or the beginning of the digest of a blob.

    Give its kind and its full name in each target that knows it, by the target's number.
    """
    if not is_unicode(asked):
        raise MaintainerError(f"the database knows nothing of {printable(asked)}")
    found: dict[int, tuple[str, str]] = {}
    entries = connection.execute(
        select(EntryRow.target_id, EntryRow.kind, EntryRow.key, EntryRow.digest)
        .where(EntryRow.key == asked)
        .order_by(EntryRow.last_seen_at.desc())
    )
    for entry in entries:
        subject = entry.digest if entry.kind == "blob" else entry.key
        found.setdefault(entry.target_id, (entry.kind, subject))
    for target_id in connection.scalars(
        select(ManifestRow.target_id).where(ManifestRow.key == asked)
    ):
        found.setdefault(target_id, ("index", asked))
    found = found or _find_newest(connection, asked)
    return found or _find_digest(connection, asked.removeprefix("buildkit-blob-1-"))


def _find_newest(connection: Connection, asked: str) -> dict[int, tuple[str, str]]:
    """Find the newest generation of an index, stored ones first, by its key without a number."""
    rows = connection.execute(
        select(ManifestRow.target_id, ManifestRow.key)
        .where(ManifestRow.key.startswith(f"{asked}#", autoescape=True))
        .order_by(ManifestRow.missing_since.is_not(None).desc(), ManifestRow.generation)
    )
    return {row.target_id: ("index", row.key) for row in rows}


def _find_digest(connection: Connection, asked: str) -> dict[int, tuple[str, str]]:
    match = _SHORT_DIGEST.fullmatch(asked)
    if match is None:
        raise MaintainerError(f"the database knows nothing of {printable(asked)}")
    if len(match[2]) < _FEWEST_DIGITS:
        raise MaintainerError(f"{asked} is too short to tell digests apart: give six digits")
    pattern = f"{match[1] or '%:'}{match[2]}%"
    named = select(BlobRow.target_id, BlobRow.digest).where(BlobRow.digest.like(pattern))
    listed = select(EntryRow.target_id, EntryRow.digest).where(
        EntryRow.kind == "blob", EntryRow.digest.like(pattern)
    )
    rows: list[Any] = list(connection.execute(union(named, listed)))
    found: set[tuple[int, str]] = {(row.target_id, row.digest) for row in rows}
    digests = sorted({digest for _, digest in found})
    if not digests:
        raise MaintainerError(f"the database knows nothing of {printable(asked)}")
    if len(digests) > 1:
        some = ", ".join(digests[:_NAMED])
        raise MaintainerError(f"{asked} begins {len(digests)} digests: {some}…")
    return {target_id: ("blob", digest) for target_id, digest in found}


def _sightings(
    connection: Connection, target_id: int, kind: str, subject: str
) -> tuple[Sighting, ...]:
    same = EntryRow.digest == subject if kind == "blob" else EntryRow.key == subject
    deleted_by = (
        select(func.max(ActionRow.run_id))
        .join(RunRow, RunRow.id == ActionRow.run_id)
        .where(
            RunRow.target_id == EntryRow.target_id,
            ActionRow.kind == "delete",
            ActionRow.store_id == EntryRow.store_id,
            ActionRow.outcome.in_(CARRIED_OUT),
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        select(EntryRow, RefRow.name.label("ref"), deleted_by.label("deleted_by"))
        .join(RefRow, RefRow.id == EntryRow.ref_id)
        .where(EntryRow.target_id == target_id, EntryRow.kind == kind, same)
        .order_by(EntryRow.missing_since.is_not(None), EntryRow.last_seen_at.desc(), EntryRow.id)
    )
    return tuple(
        Sighting(
            key=row.key,
            ref=row.ref,
            size=row.size,
            state=row.state,
            reason=row.facts,
            sentence=format_reason(row.facts),
            created_at=row.created_at,
            last_accessed_at=row.last_accessed_at,
            unneeded_since=row.unneeded_since,
            missing_since=row.missing_since,
            deleted_by=row.deleted_by,
        )
        for row in rows
    )


def _missing_since(connection: Connection, target_id: int, digest: str | None) -> datetime | None:
    return connection.execute(
        select(BlobRow.missing_since).where(
            BlobRow.target_id == target_id, BlobRow.digest == digest
        )
    ).scalar()


_LIVE_RESULTS = """
    WITH RECURSIVE
    dead (id) AS (
        SELECT layer.id FROM layer JOIN blob ON blob.id = layer.blob_id
        WHERE blob.target_id = :target_id AND blob.missing_since IS NOT NULL
        UNION
        SELECT layer.id FROM layer JOIN dead ON layer.parent_id = dead.id
    ),
    above (id, steps) AS (
        SELECT layer.id, 0 FROM layer JOIN blob ON blob.id = layer.blob_id
        WHERE blob.target_id = :target_id AND blob.digest = :digest
        UNION ALL
        SELECT layer.id, above.steps + 1 FROM layer JOIN above ON layer.parent_id = above.id
    ),
    needing (manifest_id, record_id, result_id, layer_id, steps) AS (
        SELECT record.manifest_id, record.id, result.id, above.id, above.steps
        FROM above
        JOIN result_layer ON result_layer.layer_id = above.id
        JOIN result ON result.id = result_layer.result_id
        JOIN record ON record.id = result.record_id
        WHERE NOT EXISTS (
            SELECT 1 FROM result_layer AS other JOIN dead ON dead.id = other.layer_id
            WHERE other.result_id = result.id)
    )
"""
"""`needing`: every live result that a blob is part of, whatever the index."""

_USES = text(
    _LIVE_RESULTS  # noqa: S608 - both are ours
    + """
    SELECT manifest.id, manifest.key, ref.name AS ref, manifest.missing_since IS NULL AS is_stored,
           count(DISTINCT needing.result_id) AS results, manifest.last_seen_at
    FROM needing
    JOIN manifest ON manifest.id = needing.manifest_id
    JOIN ref ON ref.id = manifest.ref_id
    WHERE manifest.superseded_at IS NULL AND (manifest.missing_since IS NULL OR NOT manifest.signed)
    GROUP BY manifest.id
    ORDER BY is_stored DESC, results DESC, manifest.id DESC
    """
)

_NEAREST = text(
    _LIVE_RESULTS  # noqa: S608 - both are ours
    + """
    SELECT needing.record_id, needing.layer_id, result.created_at
    FROM needing JOIN result ON result.id = needing.result_id
    WHERE needing.manifest_id = :manifest_id
    ORDER BY needing.steps, needing.result_id LIMIT 1
    """
)

# Of the ways to a record one is enough: by its first input, and the first alternative of that.
_RECORDS = text(
    """
    WITH RECURSIVE way (id, steps) AS (
        SELECT :record_id, 0
        UNION ALL
        SELECT (SELECT min(link.source_id) FROM link
                WHERE link.record_id = way.id AND link.input = 0), way.steps + 1
        FROM way WHERE EXISTS (SELECT 1 FROM link WHERE link.record_id = way.id AND link.input = 0)
    )
    SELECT record.digest FROM way JOIN record ON record.id = way.id ORDER BY way.steps DESC
    """
)

_LAYERS = text(
    """
    WITH RECURSIVE below (id, parent_id, blob_id, size, steps) AS (
        SELECT id, parent_id, blob_id, size, 0 FROM layer WHERE id = :layer_id
        UNION ALL
        SELECT layer.id, layer.parent_id, layer.blob_id, layer.size, below.steps + 1
        FROM layer JOIN below ON layer.id = below.parent_id
    )
    SELECT blob.digest, below.size FROM below JOIN blob ON blob.id = below.blob_id
    ORDER BY below.steps DESC
    """
)

_LAST_NAMED = text(
    """
    SELECT manifest.key, ref.name AS ref, manifest.missing_since IS NULL AS is_stored, 0 AS results,
           manifest.last_seen_at
    FROM blob
    JOIN layer ON layer.blob_id = blob.id
    JOIN manifest_layer ON manifest_layer.layer_id = layer.id
    JOIN manifest ON manifest.id = manifest_layer.manifest_id
    JOIN ref ON ref.id = manifest.ref_id
    WHERE blob.target_id = :target_id AND blob.digest = :digest
    ORDER BY manifest.last_seen_at DESC, manifest.generation DESC LIMIT 1
    """
)


def _uses(connection: Connection, target_id: int, digest: str) -> list[tuple[int, Use]]:
    rows = _ask(connection, _USES, target_id=target_id, digest=digest)
    return [(row.id, _use(row)) for row in rows]


def _use(row: Row[Any]) -> Use:
    return Use(row.key, row.ref, bool(row.is_stored), row.results, row.last_seen_at)


def _way(connection: Connection, target_id: int, digest: str, manifest_id: int) -> tuple[Step, ...]:
    """Go from an index to a blob by the result that is nearest to it."""
    nearest = connection.execute(
        _NEAREST, {"target_id": target_id, "digest": digest, "manifest_id": manifest_id}
    ).one()
    records = _ask(connection, _RECORDS, record_id=nearest.record_id)
    layers = _ask(connection, _LAYERS, layer_id=nearest.layer_id)
    return (
        *(Step("record", row.digest) for row in records),
        Step("result", nearest.created_at),
        *(Step("layer", row.digest, row.size) for row in layers),
    )


def _last_named(connection: Connection, target_id: int, digest: str) -> Use | None:
    rows = _ask(connection, _LAST_NAMED, target_id=target_id, digest=digest)
    return _use(rows[0]) if rows else None


def _ask(connection: Connection, query: TextClause, **values: object) -> Sequence[Row[Any]]:
    typed = query.columns(last_seen_at=UtcDateTime()) if "last_seen_at" in query.text else query
    return connection.execute(typed, values).all()


def _grace(connection: Connection, target_id: int) -> timedelta:
    seconds = connection.execute(
        select(func.json_extract(RunRow.report, "$.grace_seconds"))
        .where(RunRow.target_id == target_id, RunRow.report.is_not(None))
        .order_by(RunRow.id.desc())
    ).scalar()
    return _DEFAULT_GRACE if seconds is None else timedelta(seconds=seconds)
