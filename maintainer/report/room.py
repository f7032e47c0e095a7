"""Room, as a report shows it: how full a cache may be, and what leaves it. Pure."""

from maintainer.model.room import Departure, Room
from maintainer.report.model import DepartureReport, RoomReport
from maintainer.report.reasons import format_reason

_LISTED = 20
"""Up to this many departures are listed."""


def report_room(room: Room, limit: int, quota: int, stored: int) -> RoomReport:
    """Return what a report shows of a decision; `stored` are the bytes of all entries."""
    departures = room.departures
    return RoomReport(
        quota=quota,
        limit=limit,
        stored=stored,
        remaining=room.remaining,
        departures=tuple(_departure(one) for one in departures[:_LISTED]),
        departures_omitted=len(departures[_LISTED:]),
        results=sum(len(one.branch.results) for one in departures),
        freed=sum(one.reason.freed for one in departures),
    )


def _departure(one: Departure) -> DepartureReport:
    results = one.branch.results
    return DepartureReport(
        digest=one.digest,
        results=len(results),
        indexes=tuple(sorted({str(result.index) for result in results})),
        reason=one.reason,
        sentence=format_reason(one.reason),
    )
