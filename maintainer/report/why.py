"""The answer to `maintainer why`, in lines."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from maintainer.cacheconfig import NO_REF
from maintainer.graph.explain import Explanation, Occurrence, PathStep
from maintainer.model.reason import Grace
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


def render_why(told: Sequence[Explanation]) -> Text:
    """Lay an explanation out, for each cache that has the entry."""
    lines = [loggable(line, limit=1_000) for one in told for line in _lines(one)]
    return Text("\n".join(lines))


def _lines(told: Explanation) -> Iterator[str]:
    yield f"{told.subject} ({_kind(told)}) on {told.target}"
    for occurrence in told.occurrences:
        yield f"  {_format_occurrence(occurrence)}"
    if not told.occurrences:
        yield f"  {_say_unlisted(told)}"
    yield from _say_need(told)
    yield from _say_frees(told)


def _kind(told: Explanation) -> str:
    kinds = {"blob": "a layer", "index": "a generation of an index", "signature": "a signature"}
    return kinds.get(told.kind, "an entry of another tool")


def _format_occurrence(one: Occurrence) -> str:
    where = f"in {one.ref}, {format_size(one.size)}"
    if one.deleted_by is not None and one.missing_since:
        since = format_moment(one.missing_since)
        return f"{where}: deleted by run {one.deleted_by} at {since}: {one.sentence}"
    if one.missing_since:
        return (
            f"{where}: {one.state}, noticed at {format_moment(one.missing_since)}: {one.sentence}"
        )
    since = f" since {format_moment(one.unneeded_since)}" if one.unneeded_since else ""
    reason = "kept for now" if isinstance(one.reason, Grace) else one.sentence
    return (
        f"{where}: {one.state}{since}: {reason} (created {format_moment(one.created_at)}, "
        f"last used {format_moment(one.last_accessed_at)})"
    )


def _say_unlisted(told: Explanation) -> str:
    if told.kind == "index":
        return "it is remembered, but was never listed"
    if told.missing_since:
        noticed = format_moment(told.missing_since)
        return f"an index references it, but it does not exist; noticed at {noticed}"
    return "a look-up found it; it was never listed"


def _say_need(told: Explanation) -> Iterator[str]:
    if told.uses:
        results = sum(use.results for use in told.uses)
        yield f"Needed by {format_count(results, 'live result')}:"
        for use in told.uses:
            remembered = "" if use.is_stored else ", remembered"
            yield f"  {format_count(use.results, 'result')} of {use.key} in {use.ref}{remembered}"
        yield f"The shortest path to it from {told.uses[0].key}:"
        yield from _say_way(told)
    elif told.kind == "blob" and told.last_named:
        named = told.last_named
        stored = (
            "which is stored"
            if named.is_stored
            else f"last seen {format_moment(named.last_seen_at)}"
        )
        yield "No live result needs it."
        yield f"  The last index that referenced it: {named.key} in {named.ref}, {stored}."
    elif told.kind == "blob":
        yield "No remembered index references it."


def _say_way(told: Explanation) -> Iterator[str]:
    for kind in ("record", "result", "layer"):
        steps = [step for step in told.way if step.kind == kind]
        for step in _shortened(steps):
            if step is None:
                yield f"    … {format_count(len(steps) - 2 * _ENDS, f'more {kind}')}"
            else:
                yield f"  {_say_step(step)}{'   ← this' if step.name == told.subject else ''}"


def _shortened(steps: Sequence[PathStep]) -> Sequence[PathStep | None]:
    if len(steps) <= 2 * _ENDS + 1:
        return steps
    return (*steps[:_ENDS], None, *steps[-_ENDS:])


def _say_step(step: PathStep) -> str:
    if step.kind == "result":
        return f"→ a result of {step.name}"
    size = "" if step.size is None else f", {format_size(step.size)}"
    return f"→ {step.kind} {format_digest(step.name)}{size}"


def _say_frees(told: Explanation) -> Iterator[str]:
    stored = [one for one in told.occurrences if not one.missing_since]
    ways = {one.ref: say_what_frees(told, one) for one in stored}
    if not told.occurrences:
        yield "What would free it: nothing, it is not stored."
    elif not ways:
        yield "What would free it: it is gone already."
    elif len(set(ways.values())) == 1:
        yield f"What would free it: {next(iter(ways.values()))}"
    else:
        yield "What would free it:"
        for ref, way in ways.items():
            yield f"  in {ref}: {way}"


def say_what_frees(told: Explanation, one: Occurrence) -> str:
    """Return in a sentence what would free a stored entry."""
    grace = format_duration(told.grace)
    if one.state in ("dangling", "superseded"):
        if one.unneeded_since is None:
            return f"the first run that finds it unreferenced for {grace}."
        due = format_moment(one.unneeded_since + told.grace)
        if not isinstance(one.reason, Grace):
            return f"the first run after {due}, once this no longer keeps it: {one.sentence}."
        return f"the first run after {due}, if it is still unreferenced (grace period: {grace})."
    if one.ref == NO_REF and one.state == "reachable":
        return (
            "no run, as long as results need it. If somebody else deletes it, or a layer below it, "
            "the next run drops the results that need it."
        )
    return _FREED_BY.get(one.state, "the next run decides.").format(
        ref=one.ref, results=format_count(sum(use.results for use in told.uses), "result")
    )


_FREED_BY = {
    "reachable": "no run, as long as results need it. If GitHub evicts it, or a layer below it, "
    "the next run drops the results that need it.",
    "newest": "a newer generation: a run writes one as soon as its content would differ.",
    "signed": "no run: builders would refuse an unsigned index in its place.",
    "unreadable ref": "no run from here: only a run in a workflow on {ref} can read it.",
    "foreign": "no run: it belongs to another tool, or does not follow BuildKit's rules.",
    "unread": "no run, until it can be read.",
}
