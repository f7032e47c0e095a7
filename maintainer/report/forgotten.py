"""The answer to `maintainer forget`, in lines."""

from collections.abc import Iterator, Sequence

from maintainer.cacheconfig import NO_REF
from maintainer.graph.forget import ForgottenIndex
from maintainer.report.words import format_count, format_size
from maintainer.sanitize import loggable


def format_forgotten(found: Sequence[ForgottenIndex], *, dry_run: bool) -> Iterator[str]:
    """Return what is dropped, and when."""
    for one in found:
        place = one.scope if one.ref == NO_REF else f"{one.scope} in {one.ref}"
        results = format_count(one.results, "remembered result")
        blobs = format_count(one.blobs, "blob")
        line = f"{one.target}: {place}: {results}; {blobs} ({format_size(one.size)}) of its own"
        yield loggable(line, limit=1_000)
    if dry_run:
        yield "Nothing was changed."
    else:
        yield "The next run drops the results; the blobs follow after the grace period."
