"""Why an entry is kept or will be deleted: from the database alone."""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, func, select, true, union

from maintainer.cacheconfig import BLOB_PREFIX, CacheConfig, Digest, IndexId, decode, prune
from maintainer.cacheconfig.needs import Need, layers_to, needs_of, records_to
from maintainer.cacheconfig.timestamps import format_time
from maintainer.decoding import decode_json
from maintainer.errors import MaintainerError
from maintainer.graph.index_state import (
    IndexState,
    find_name_of_manifest,
    load_index_state,
    load_missing,
)
from maintainer.graph.memory import load_memory, to_index
from maintainer.graph.reports import load_content
from maintainer.graph.tables import (
    ACTION,
    BLOB,
    ENTRY,
    GENERATION,
    GENERATION_BLOB,
    REF,
    RUN,
    SCOPE,
    TARGET,
    listed_at,
    probed_at,
)
from maintainer.model.limits import DEFAULT_GRACE
from maintainer.model.marks import State
from maintainer.model.outcome import CARRIED_OUT_CODES
from maintainer.model.reason import Reason
from maintainer.model.remembered import Remembered
from maintainer.report.reasons import format_reason
from maintainer.sanitize import is_unicode, printable

_SHORT_DIGEST = re.compile(r"(sha256:|sha384:|sha512:)?([0-9a-f]{1,128})", re.ASCII)
_FEWEST_DIGITS = 6
_NAMED = 3


class Occurrence(msgspec.Struct, frozen=True):
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
    unreferenced_since: datetime | None
    missing_since: datetime | None
    deleted_by: int | None
    """The run that deleted it."""


class Reference(msgspec.Struct, frozen=True):
    """An index whose live results need the subject, or that once named it."""

    key: str
    ref: str
    is_stored: bool
    results: int
    """The live results that need it."""
    last_seen_at: datetime


class PathStep(msgspec.Struct, frozen=True):
    """One step of the way from an index to a blob."""

    kind: str
    """`record`, `result` or `layer`."""
    name: str
    size: int | None = None
    """Bytes of a layer."""


class Explanation(msgspec.Struct, frozen=True):
    """All that the database knows of one entry of a cache."""

    target: str
    """The name of the cache."""
    subject: str
    """A key, or the digest of a blob."""
    kind: str
    """`blob`, `index`, `signature` or `foreign`."""
    occurrences: tuple[Occurrence, ...]
    """The newest first; none for a blob that was never listed."""
    missing_since: datetime | None
    """Of a blob that an index names: since when it is known not to exist."""
    uses: tuple[Reference, ...]
    """The indexes that need it, those that are stored first."""
    path: tuple[PathStep, ...]
    """From the first of those indexes to it: records, a result, and layers from the bottom up."""
    left_out: tuple[Reference, ...]
    """Indexes that have no room for the results that need it."""
    lost: tuple[Reference, ...]
    """If it is gone: the indexes that have lost results with it, which are still remembered."""
    last_referenced: Reference | None
    """If it is unreferenced: the last index that referenced it."""
    grace: timedelta
    """As in the last run; dry runs count only if there is no other."""
    exported_at: datetime | None = None
    """Of a blob: when a build last exported an index that references it, if known."""
    departure: str | None = None
    """Of a blob: why its results have left to make room, as a sentence, if so."""
    index: IndexState | None = None
    """Of an index: what was read of it."""
    is_layer: bool = False
    """Of a blob: whether an index that was read references it."""
    manifest_of: str | None = None
    """Of the manifest of an index: the name that leads to it."""


def explain(
    connection: Connection, subject: str, *, target: str | None = None
) -> tuple[Explanation, ...]:
    """Return why an entry is kept or will be deleted, in each cache that has it, by cache name.

    With a target, only in that cache. Raises MaintainerError if the database knows none.
    """
    found = _find(connection, subject, target)
    named = select(TARGET.c.name, TARGET.c.id).where(TARGET.c.id.in_(found)).order_by(TARGET.c.name)
    return tuple(
        _explain(connection, target, target_id, *found[target_id])
        for target, target_id in connection.execute(named).all()
    )


def _explain(
    connection: Connection, target: str, target_id: int, kind: str, subject: str
) -> Explanation:
    digest = subject if kind == "blob" else None
    occurrences = _occurrences(connection, target_id, kind, subject)
    missing = load_missing(connection, target_id)
    found = _needs(connection, target_id, digest, missing) if digest else []
    remembered, lost = ([], found) if digest in missing else (found, [])
    states = {one.state for one in occurrences if one.missing_since is None}
    # A run decides at the end of which results there is room for; until the next one, that holds.
    nothing_fits = states == {State.DANGLING}
    needs = [one for one in remembered if not (one.is_left_out or nothing_fits)]
    last = _last_named(connection, target_id, digest) if digest and not needs else None
    blob = connection.execute(
        select(BLOB.c.missing_since, BLOB.c.needed_at, BLOB.c.departure).where(
            BLOB.c.target_id == target_id, BLOB.c.digest == digest
        )
    ).first()
    return Explanation(
        target=target,
        subject=subject,
        kind=kind,
        occurrences=occurrences,
        missing_since=blob and blob.missing_since,
        uses=tuple(need.use for need in needs),
        path=needs[0].path() if needs else (),
        left_out=() if needs else tuple(one.use for one in remembered),
        lost=tuple(one.use for one in lost),
        last_referenced=last,
        grace=_grace(connection, target_id),
        exported_at=blob and blob.needed_at,
        departure=format_reason(blob.departure) if blob and blob.departure else None,
        index=load_index_state(connection, target_id, subject) if kind == "index" else None,
        is_layer=blob is not None,
        manifest_of=find_name_of_manifest(connection, target_id, digest) if digest else None,
    )


def _find(connection: Connection, subject: str, target: str | None) -> dict[int, tuple[str, str]]:
    """Find what is meant: a key, a digest, or the beginning of the digest of a blob.

    Return its kind and its full name in each target that knows it, by the target's number.
    """
    if not subject.strip() or subject == "sha256:":
        raise MaintainerError(
            "the database has no entry or layer without a name: use a key or a digest"
        )
    if not is_unicode(subject):
        raise MaintainerError(f"the database has no entry or layer {printable(subject)}")
    found: dict[int, tuple[str, str]] = {}
    entries = connection.execute(
        select(ENTRY.c.target_id, ENTRY.c.kind, ENTRY.c.key, ENTRY.c.digest)
        .where(ENTRY.c.key == subject, _is_in(ENTRY, target))
        .order_by(_last_listed_at().desc())
    )
    for entry in entries:
        subject = entry.digest if entry.kind == "blob" else entry.key
        found.setdefault(entry.target_id, (entry.kind, subject))
    for target_id in connection.scalars(
        select(GENERATION.c.target_id).where(
            GENERATION.c.key == subject, _is_in(GENERATION, target)
        )
    ):
        found.setdefault(target_id, ("index", subject))
    found = found or _find_newest(connection, subject, target)
    return found or _find_digest(connection, subject.removeprefix(BLOB_PREFIX), target)


def _is_in(table: Table, target: str | None) -> ColumnElement[bool]:
    """Whether a row belongs to a target; those of all do, if none is named."""
    if target is None:
        return true()
    return table.c.target_id.in_(select(TARGET.c.id).where(TARGET.c.name == target))


def _find_newest(
    connection: Connection, subject: str, target: str | None
) -> dict[int, tuple[str, str]]:
    """Find the newest generation of an index, stored ones first, by its key without a number."""
    rows = connection.execute(
        select(GENERATION.c.target_id, GENERATION.c.key)
        .where(
            GENERATION.c.key.startswith(f"{subject}#", autoescape=True), _is_in(GENERATION, target)
        )
        .order_by(GENERATION.c.missing_since.is_not(None).desc(), GENERATION.c.number)
    )
    return {row.target_id: ("index", row.key) for row in rows}


def _find_digest(
    connection: Connection, subject: str, target: str | None
) -> dict[int, tuple[str, str]]:
    match = _SHORT_DIGEST.fullmatch(subject)
    if match is None:
        raise MaintainerError(f"the database has no entry or layer {printable(subject)}")
    if len(match[2]) < _FEWEST_DIGITS:
        raise MaintainerError(f"{subject} is too short to tell digests apart: give six digits")
    pattern = f"{match[1] or '%:'}{match[2]}%"
    named = select(BLOB.c.target_id, BLOB.c.digest).where(
        BLOB.c.digest.like(pattern), _is_in(BLOB, target)
    )
    listed = select(ENTRY.c.target_id, ENTRY.c.digest).where(
        ENTRY.c.kind == "blob", ENTRY.c.digest.like(pattern), _is_in(ENTRY, target)
    )
    rows: list[Any] = list(connection.execute(union(named, listed)))
    found: set[tuple[int, str]] = {(row.target_id, row.digest) for row in rows}
    digests = sorted({digest for _, digest in found})
    if not digests:
        raise MaintainerError(f"the database has no entry or layer {printable(subject)}")
    if len(digests) > 1:
        some = ", ".join(digests[:_NAMED])
        raise MaintainerError(f"{subject} begins {len(digests)} digests: {some}…")
    return {target_id: ("blob", digest) for target_id, digest in found}


def _occurrences(
    connection: Connection, target_id: int, kind: str, subject: str
) -> tuple[Occurrence, ...]:
    same = ENTRY.c.digest == subject if kind == "blob" else ENTRY.c.key == subject
    deleted_by = (
        select(func.max(ACTION.c.run_id))
        .join(RUN, RUN.c.id == ACTION.c.run_id)
        .where(
            RUN.c.target_id == ENTRY.c.target_id,
            ACTION.c.kind == "delete",
            ACTION.c.store_id == ENTRY.c.store_id,
            ACTION.c.outcome.in_(CARRIED_OUT_CODES),
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        select(ENTRY, REF.c.name.label("ref"), deleted_by.label("deleted_by"))
        .join(REF, REF.c.id == ENTRY.c.ref_id)
        .where(ENTRY.c.target_id == target_id, ENTRY.c.kind == kind, same)
        .order_by(ENTRY.c.missing_since.is_not(None), _last_listed_at().desc(), ENTRY.c.id)
    )
    return tuple(
        Occurrence(
            key=row.key,
            ref=row.ref,
            size=row.size,
            state=row.state,
            reason=row.facts,
            sentence=format_reason(row.facts),
            created_at=row.created_at,
            last_accessed_at=row.last_accessed_at,
            unreferenced_since=row.unreferenced_since,
            missing_since=row.missing_since,
            deleted_by=row.deleted_by,
        )
        for row in rows
    )


def _last_listed_at() -> ColumnElement[datetime]:
    return func.coalesce(ENTRY.c.last_seen_at, listed_at(ENTRY.c.target_id))


@dataclass(frozen=True, slots=True)
class _Need:
    """An index that needs a blob, and the merge of its generations."""

    use: Reference
    config: CacheConfig
    needs: tuple[Need, ...]
    is_left_out: bool
    """Whether a run wrote the index last, and without it."""

    def path(self) -> tuple[PathStep, ...]:
        """Go from the index to the blob by the result that is nearest to it."""
        nearest = min(self.needs, key=lambda need: need.steps)
        records = records_to(self.config, nearest.record)
        layers = layers_to(self.config, nearest.layer)
        return (
            *(PathStep("record", record.digest) for record in records),
            PathStep("result", format_time(nearest.result.created_at)),
            *(PathStep("layer", layer.blob, layer.size) for layer in layers),
        )


def _needs(
    connection: Connection, target_id: int, digest: str, missing: AbstractSet[Digest]
) -> list[_Need]:
    """Find the indexes whose live results need a blob, those that are stored first.

    Of a blob that is missing itself, those whose results would be live if it came back.
    """
    blob = Digest(digest)
    others = missing - {blob}
    found = []
    for row, config in _merges(connection, target_id):
        if blob not in config.blobs:
            continue
        merged = prune(config, config.blobs - others)
        needs = tuple(needs_of(merged, blob))
        if needs:
            is_stored = row.missing_since is None
            use = Reference(row.key, row.ref, is_stored, len(needs), row.last_seen_at)
            found.append(_Need(use, merged, needs, _is_left_out(connection, row, blob)))
    return sorted(found, key=lambda one: (not one.use.is_stored, -one.use.results))


def _is_left_out(connection: Connection, row: Row[Any], blob: Digest) -> bool:
    """Whether the newest generation of an index is one that a run wrote without a blob."""
    if row.sink is None or row.missing_since is not None:
        return False
    config = _load_config(connection, row.id)
    return config is not None and blob not in config.blobs


def _load_config(connection: Connection, generation_id: int) -> CacheConfig | None:
    """Return what a generation contains; None if it is not valid, or not kept."""
    content = connection.scalar(
        select(GENERATION.c.content).where(GENERATION.c.id == generation_id)
    )
    return None if content is None else decode(content)


def _merges(connection: Connection, target_id: int) -> Iterator[tuple[Row[Any], CacheConfig]]:
    """Return what each index comes to, with its newest generation; signed ones one by one.

    There is no memory of a merge that a run wrote: its content is what is stored.
    """
    memory = load_memory(connection, target_id)
    found = connection.execute(
        select(
            GENERATION.c.id,
            GENERATION.c.key,
            GENERATION.c.signed,
            GENERATION.c.missing_since,
            GENERATION.c.sink,
            _last_seen_at(target_id).label("last_seen_at"),
            REF.c.name.label("ref"),
            SCOPE.c.name.label("scope"),
        )
        .join(REF, REF.c.id == GENERATION.c.ref_id)
        .join(SCOPE, SCOPE.c.id == GENERATION.c.scope_id)
        .where(GENERATION.c.target_id == target_id)
        .order_by(
            GENERATION.c.missing_since.is_not(None),
            GENERATION.c.number.desc(),
            GENERATION.c.id.desc(),
        )
    )
    rows: list[Any] = list(found)
    seen: set[IndexId] = set()
    for row in rows:
        index = to_index(row)
        if index in seen and not row.signed:
            continue
        seen.add(index)
        remembered = memory.get(index, Remembered()).merged()
        if remembered.records:
            yield row, remembered
        elif row.missing_since is None and (config := _load_config(connection, row.id)):
            yield row, config


def _last_named(connection: Connection, target_id: int, digest: str) -> Reference | None:
    seen = _last_seen_at(target_id).label("last_seen_at")
    row = connection.execute(
        select(GENERATION.c.key, GENERATION.c.missing_since, seen, REF.c.name.label("ref"))
        .join(REF, REF.c.id == GENERATION.c.ref_id)
        .join(GENERATION_BLOB, GENERATION_BLOB.c.generation_id == GENERATION.c.id)
        .join(BLOB, BLOB.c.id == GENERATION_BLOB.c.blob_id)
        .where(BLOB.c.target_id == target_id, BLOB.c.digest == digest)
        .order_by(seen.desc(), GENERATION.c.number.desc())
    ).first()
    if row is None:
        return None
    return Reference(row.key, row.ref, row.missing_since is None, 0, row.last_seen_at)


def _last_seen_at(target_id: int) -> ColumnElement[datetime]:
    return func.coalesce(GENERATION.c.last_seen_at, probed_at(target_id))


class _Settings(msgspec.Struct, frozen=True):
    """The part of a report that is needed; the rest, which can be large, is not decoded."""

    grace_seconds: int


def _grace(connection: Connection, target_id: int) -> timedelta:
    newest = select(RUN.c.id).where(RUN.c.target_id == target_id, RUN.c.report.is_not(None))
    # A dry run may try another one.
    run = connection.execute(newest.order_by(RUN.c.dry_run, RUN.c.id.desc()).limit(1)).scalar()
    report = None if run is None else load_content(connection, run)
    if report is None:
        return DEFAULT_GRACE
    return timedelta(seconds=decode_json(report, _Settings).grace_seconds)
