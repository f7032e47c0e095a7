"""Check the set-up: the cache, the database and the workflows. Nothing is changed."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import msgspec

from maintainer.errors import DatabaseError
from maintainer.graph.database import Database
from maintainer.graph.revision import NEWEST
from maintainer.model.finding import Finding, Level, note, ok, problem
from maintainer.report.words import format_count
from maintainer.sanitize import loggable
from maintainer.settings import Settings
from maintainer.setup.workflows import (
    ACTIONS,
    SCHEDULES,
    CacheUse,
    Workflow,
    find_root,
    read_workflows,
)
from maintainer.stores.diagnose import diagnose
from maintainer.stores.kinds import for_target, kind_of

_CACHE_ITSELF = "`maintainer gc --repair --dry-run` looks for damage in the cache"
"""Who asks because builds fail must not take a sound set-up for a sound cache."""


class Diagnosis(msgspec.Struct, frozen=True):
    """All that was checked, and the caches that the workflows name."""

    findings: tuple[Finding, ...]
    caches: tuple[CacheUse, ...]

    @property
    def problems(self) -> int:
        """How many problems there are."""
        return sum(1 for one in self.findings if one.level == Level.PROBLEM)


async def examine(settings: Settings, folder: Path, clock: Callable[[], datetime]) -> Diagnosis:
    """Check everything that a run with these settings, started in a folder, depends on."""
    findings = [one async for one in _stores(settings, clock)]
    findings.append(_database(settings.database))
    root = find_root(folder)
    workflows = read_workflows(root) if root else ()
    stores = [one.store or settings.store for one in settings.targets] or [settings.store]
    if root and any(kind_of(one).uses_repository for one in stores):
        findings += _workflows(workflows, settings.merged_scope)
    return Diagnosis(tuple(findings), tuple(use for one in workflows for use in one.caches))


async def _stores(settings: Settings, clock: Callable[[], datetime]) -> AsyncIterator[Finding]:
    if not settings.targets and not settings.discover:
        async for finding in diagnose(settings, None, clock):
            yield finding
    for target in settings.targets:
        async for finding in diagnose(for_target(settings, target), target, clock):
            yield msgspec.structs.replace(finding, subject=f"{target.name}: {finding.subject}")


def _of_another_version(database: str, revision: str) -> Finding:
    from maintainer.graph.migrate import is_known  # noqa: PLC0415 - it imports Alembic

    if is_known(revision):
        return note("database", f"{database} was made by an older version: a run upgrades it")
    return problem("database", f"{database} was made by a newer version: upgrade maintainer")


def _database(url: str) -> Finding:
    database = Database(url)
    try:
        if not database.exists():
            return note("database", f"{database.name} does not exist: no run has used it yet")
        revision = database.revision()
        if revision is None:
            return note("database", f"{database.name} has no tables yet: a run makes them")
        if revision != NEWEST:
            return _of_another_version(database.name, revision)
        with nullcontext() if database.is_shared else database.lock():
            database.check_writable()
            return ok("database", f"{database.name} can be used")
    except DatabaseError as error:
        return problem("database", str(error))
    finally:
        database.close()


def _workflows(workflows: Iterable[Workflow], merged: str) -> Iterator[Finding]:
    """Check what the workflows of this repository export and import."""
    workflows = tuple(workflows)
    ours = [one for one in workflows if one.maintainer]
    if ours:
        names = ", ".join(one.file for one in ours)
        yield ok("workflows", f"the cache is maintained by {names}; {SCHEDULES}")
    else:
        yield note("workflows", "none maintains the cache", "`maintainer init` writes one")
    for workflow in workflows:
        exports = workflow.exports(ACTIONS)
        for use in exports:
            yield from _export(use, merged)
        if exports and merged and not workflow.imports(ACTIONS, merged):
            yield note(
                workflow.file,
                "it exports a cache, but does not import the merge of all caches",
                f"add `type=gha,scope={merged}` to its `cache-from`",
            )


def _export(use: CacheUse, merged: str) -> Iterator[Finding]:
    place = f"{use.file}:{use.line}"
    attributes = ", ".join(f"{key}={value}" for key, value in use.attributes.items())
    mode = use.attributes.get("mode", "min")
    what = f"exports to scope {use.scope}" + (f" ({attributes})" if attributes else "")
    if merged and use.scope == merged:
        yield problem(
            place,
            f"{what}, which belongs to the merge of all caches",
            "export to another scope, or none",
        )
    elif mode == "min":
        yield note(
            place,
            f"{what}: only the layers of the final stage are cached",
            "add `mode=max` to cache the stages before it too",
        )
    else:
        yield ok(place, what)


def format_diagnosis(diagnosis: Diagnosis) -> Iterator[str]:
    """Format the findings: problems first, each with what to do; the verdict last."""
    order = (Level.PROBLEM, Level.NOTE, Level.OK)
    for one in sorted(diagnosis.findings, key=lambda finding: order.index(finding.level)):
        yield f"{one.level:<8} {loggable(one.subject)}: {loggable(one.sentence, limit=1_000)}"
        if one.advice:
            yield f"         → {loggable(one.advice, limit=1_000)}"
    yield _verdict(diagnosis)


def _verdict(diagnosis: Diagnosis) -> str:
    notes = sum(1 for one in diagnosis.findings if one.level == Level.NOTE)
    if diagnosis.problems:
        return f"{format_count(diagnosis.problems, 'problem')} and {format_count(notes, 'note')}."
    noted = f", and {format_count(notes, 'note')}" if notes else ""
    return f"No problems with the set-up{noted}; {_CACHE_ITSELF}."
