"""Room, as a report shows it: how full a cache may be, and what leaves it. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from maintainer.cacheconfig import Digest, IndexId
from maintainer.model.room import Departure, RoomDecision
from maintainer.report.model import DepartureReport, RoomReport
from maintainer.report.reasons import format_reason

_LISTED = 20
"""Up to this many departures are listed."""


def report_room(
    decided: RoomDecision,
    not_written: Collection[IndexId] = (),
    merged: frozenset[Digest] = frozenset(),
    exported: frozenset[Digest] = frozenset(),
) -> RoomReport:
    """Return what a report shows of a decision, as far as it was carried out.

    What is in an index that was `not_written` is still there, and so is what needs a blob of a
    merge that was not, `merged`. What a build has `exported` since the run began stays.
    """
    chosen = [one for one in decided.room.departures if not one.freed & exported]
    left = []
    for one in chosen:
        results = tuple(x for x in one.branch.results if x.index not in not_written)
        if results and not one.freed & merged:
            left.append(replace(one, branch=replace(one.branch, results=results)))
    return RoomReport(
        quota=decided.quota,
        limit=decided.limit,
        stored=decided.stored,
        remaining=decided.room.remaining,
        departures=tuple(_departure(one) for one in left[:_LISTED]),
        departures_omitted=len(left[_LISTED:]),
        results=_count(left),
        held=_count(chosen) - _count(left),
        freed=sum(one.reason.freed for one in left),
    )


def _count(departures: Sequence[Departure]) -> int:
    return sum(len(one.branch.results) for one in departures)


def _departure(one: Departure) -> DepartureReport:
    results = one.branch.results
    return DepartureReport(
        digest=one.digest,
        results=len(results),
        indexes=tuple(sorted({str(result.index) for result in results})),
        reason=one.reason,
        sentence=format_reason(one.reason),
    )
