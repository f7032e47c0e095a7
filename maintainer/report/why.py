"""The answer to `maintainer why`, in lines."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from maintainer.cacheconfig import NO_REF
from maintainer.graph.explain import Explanation, Occurrence, PathStep
from maintainer.graph.index_state import IndexState
from maintainer.model.marks import State
from maintainer.model.reason import (
    BeyondNewest,
    BeyondSize,
    Grace,
    Overdue,
    ReadByBuilds,
    Replaced,
    Unused,
)
from maintainer.report.words import (
    format_count,
    format_digest,
    format_duration,
    format_moment,
    format_size,
)
from maintainer.sanitize import loggable

_ENDS = 4
"""Up to this many steps of a kind are listed from each end of a long path."""


def render_why(explanation: Sequence[Explanation]) -> Text:
    """Format an explanation, for each cache that has the entry."""
    lines = [loggable(line, limit=1_000) for one in explanation for line in _lines(one)]
    return Text("\n".join(lines))


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.subject} ({_kind(explanation)}) on {explanation.target}"
    for occurrence in explanation.occurrences:
        yield f"  {_format_occurrence(occurrence)}"
    if not explanation.occurrences:
        yield f"  {_format_unlisted(explanation)}"
    yield from _format_need(explanation)
    yield from _format_frees(explanation)


def _kind(explanation: Explanation) -> str:
    kinds = {"index": "a generation of an index", "signature": "a signature"}
    if explanation.kind == "blob":
        return _kind_of_blob(explanation)
    if explanation.index and explanation.index.ref == NO_REF:
        return "an index"
    # Where there are no refs, it may be a name that a rule lets expire.
    has_refs = any(one.ref != NO_REF for one in explanation.occurrences)
    return kinds.get(explanation.kind, "an entry of another tool" if has_refs else "not a layer")


def _kind_of_blob(explanation: Explanation) -> str:
    """Directories and registries store more blobs than layers."""
    if explanation.manifest_of:
        return f"the manifest of {explanation.manifest_of}"
    may_be_other = any(one.ref == NO_REF for one in explanation.occurrences)
    if explanation.is_layer or not may_be_other:
        return "a layer"
    return "a part of an index" if _is_of_index(explanation) else "a blob"


def _is_of_index(explanation: Explanation) -> bool:
    """Whether builds read it to find layers: a manifest, or the config of one."""
    reasons = (one.reason for one in explanation.occurrences)
    return bool(explanation.manifest_of) or any(isinstance(one, ReadByBuilds) for one in reasons)


def _in(ref: str) -> str:
    return "" if ref == NO_REF else f" in {ref}"


def _format_occurrence(one: Occurrence) -> str:
    size = format_size(one.size)
    where = size if one.ref == NO_REF else f"in {one.ref}, {size}"
    if one.deleted_by is not None and one.missing_since:
        since = format_moment(one.missing_since)
        return f"{where}: deleted by run {one.deleted_by} at {since}: {one.sentence}"
    if one.missing_since:
        return (
            f"{where}: {one.state}, noticed at {format_moment(one.missing_since)}: {one.sentence}"
        )
    # A run that cannot read its ref does not know whether something needs it by now.
    at = one.unreferenced_since if one.state != State.UNREADABLE else None
    since = f" since {format_moment(at)}" if at else ""
    reason = one.sentence
    if isinstance(one.reason, Grace):
        reason = (
            "a run is to merge it into a newer one" if _is_to_be_merged(one) else "kept for now"
        )
    return (
        f"{where}: {one.state}{since}: {reason} (created {format_moment(one.created_at)}, "
        f"last used {format_moment(one.last_accessed_at)})"
    )


def _format_unlisted(explanation: Explanation) -> str:
    if explanation.index:
        return _format_index(explanation.index)
    if explanation.missing_since:
        noticed = format_moment(explanation.missing_since)
        if _is_referenced(explanation):
            return f"an index references it, but it does not exist; noticed at {noticed}"
        return f"an index referenced it, but it did not exist; noticed at {noticed}"
    return "a look-up found it; it was never listed"


def _is_referenced(explanation: Explanation) -> bool:
    """Whether an index that is stored references it."""
    last = explanation.last_referenced
    return bool(explanation.uses) or (last is not None and last.is_stored)


def _format_index(index: IndexState) -> str:
    """Format what is known of an index that no list of entries shows."""
    if index.is_by_run:
        written = f"last written by a run at {format_moment(index.first_seen_at)}"
    elif index.written_at:
        written = f"last written at {format_moment(index.written_at)}"
    else:
        written = f"last written before {format_moment(index.first_seen_at)}"
    if index.missing_since:
        return f"not stored, noticed at {format_moment(index.missing_since)}; {written}"
    unlisted = "" if index.ref == NO_REF else ", never listed"
    size = "" if index.size is None else f", {format_size(index.size)}"
    if index.violation:
        return f"stored{unlisted}{size}, {written}: builds cannot use it: {index.violation}"
    results = format_count(index.results, "result")
    usable = f"{index.usable:,} of {results} can be used"
    return f"stored{unlisted}{size}, {written}: {usable}"


def _format_need(explanation: Explanation) -> Iterator[str]:
    if explanation.uses:
        results = sum(use.results for use in explanation.uses)
        exported = explanation.exported_at
        when = f", last exported {format_moment(exported)}" if exported else ""
        several = len(explanation.uses) > 1
        counted = f" (counted in each of {len(explanation.uses):,} indexes)" if several else ""
        yield f"Needed by {format_count(results, 'live result')}{counted}{when}:"
        for use in explanation.uses:
            remembered = "" if use.is_stored else ", remembered"
            yield f"  {format_count(use.results, 'result')} of {use.key}{_in(use.ref)}{remembered}"
        yield f"The shortest path to it from {explanation.uses[0].key}:"
        yield from _format_path(explanation)
    elif explanation.lost and not explanation.departure:
        yield "Gone with it, until a build makes it again:"
        for use in explanation.lost:
            yield f"  {format_count(use.results, 'result')} of {use.key}{_in(use.ref)}"
    elif explanation.kind == "blob" and explanation.last_referenced:
        named = explanation.last_referenced
        stored = (
            "which is stored"
            if named.is_stored
            else f"last seen {format_moment(named.last_seen_at)}"
        )
        yield "No live result needs it."
        yield f"  The last index that referenced it: {named.key}{_in(named.ref)}, {stored}."
    elif explanation.kind == "blob" and not _is_of_index(explanation):
        yield "No remembered index references it."
    for full in explanation.left_out:
        need = "needs" if full.results == 1 else "need"
        omitted = f"{format_count(full.results, 'result')} that {need} it"
        yield f"  {full.key}{_in(full.ref)} has no room for {omitted}."
    if explanation.departure:
        yield f"  Its results have left the cache: {explanation.departure}."


def _format_path(explanation: Explanation) -> Iterator[str]:
    for kind in ("record", "result", "layer"):
        steps = [step for step in explanation.path if step.kind == kind]
        for step in _shortened(steps):
            if step is None:
                yield f"    … {format_count(len(steps) - 2 * _ENDS, f'more {kind}')}"
            else:
                mark = "   ← this" if step.name == explanation.subject else ""
                yield f"  {_format_step(step)}{mark}"


def _shortened(steps: Sequence[PathStep]) -> Sequence[PathStep | None]:
    if len(steps) <= 2 * _ENDS + 1:
        return steps
    return (*steps[:_ENDS], None, *steps[-_ENDS:])


def _format_step(step: PathStep) -> str:
    if step.kind == "result":
        to_the_minute = step.name[: len("2026-08-01T12:20")].replace("T", " ")
        return f"→ a result of {to_the_minute} UTC"
    size = "" if step.size is None else f", {format_size(step.size)}"
    return f"→ {step.kind} {format_digest(step.name)}{size}"


def _format_frees(explanation: Explanation) -> Iterator[str]:
    stored = [one for one in explanation.occurrences if not one.missing_since]
    ways = {one.ref: format_what_frees(explanation, one) for one in stored}
    if explanation.index and not explanation.occurrences:
        yield f"What would free it: {_format_what_frees_index(explanation.index)}"
    elif not explanation.occurrences:
        yield "What would free it: nothing, it is not stored."
    elif not ways:
        yield "What would free it: it is gone already."
    elif len(set(ways.values())) == 1:
        yield f"What would free it: {next(iter(ways.values()))}"
    else:
        yield "What would free it:"
        for ref, way in ways.items():
            yield f"  in {ref}: {way}"


def _format_what_frees_index(index: IndexState) -> str:
    if index.missing_since:
        return "it is gone already."
    if index.ref == NO_REF:
        return _FREED_BY["named"]
    return "the next run that lists it decides."


def format_what_frees(explanation: Explanation, one: Occurrence) -> str:
    """Return in a sentence what would free a stored entry."""
    if one.state in ("dangling", "superseded"):
        return _format_due(explanation, one)
    if isinstance(one.reason, Grace):
        after = f"the first run after {format_moment(one.reason.until)}"
        if _is_to_be_merged(one):
            return f"{after}, once a newer generation contains it."
        return f"{after}, if nobody uses it before."
    if isinstance(one.reason, BeyondNewest | Unused | BeyondSize):
        return "the next run that may delete."
    is_named = isinstance(one.reason, ReadByBuilds) and one.ref == NO_REF
    return _FREED_BY.get("named" if is_named else one.state, "the next run decides.").format(
        ref=one.ref, results=format_count(sum(use.results for use in explanation.uses), "result")
    )


def _is_to_be_merged(one: Occurrence) -> bool:
    """Whether it is an index that builds read until a planned one is written, which was not yet."""
    return (
        isinstance(one.reason, Grace)
        and one.state == State.NEWEST
        and one.reason.state == State.SUPERSEDED
    )


def _format_due(explanation: Explanation, one: Occurrence) -> str:
    """Return when something unreferenced is deleted."""
    grace = format_duration(explanation.grace)
    if one.unreferenced_since is None:
        return f"the first run that finds it unreferenced for {grace}."
    if isinstance(one.reason, Overdue | Replaced):
        return "the next run that may delete, if it is still unreferenced."
    due = format_moment(one.unreferenced_since + explanation.grace)
    if isinstance(one.reason, Grace):
        return f"the first run after {due}, if it is still unreferenced (grace period: {grace})."
    return f"the first run after {due}, once this no longer keeps it: {one.sentence}."


_FREED_BY = {
    "reachable": "no run, as long as results need it. `maintainer forget` lets the results of a "
    "scope or tag go; and if it, or a layer that it stands on, is gone, the next run drops the "
    "results that need it.",
    "newest": "a newer generation: a run writes one as soon as its content would differ.",
    "named": "another export to its name, or a run that rewrites it.",
    "signed": "no run: builders would refuse an unsigned index in its place.",
    "unreadable ref": "no run from here: only a run in a workflow on {ref} can read it.",
    "closed ref": "the next run that may delete, unless the ref is in use again by then.",
    "foreign": "no run: it belongs to another tool, or does not follow BuildKit's rules.",
    "unread": "no run, until it can be read.",
}
