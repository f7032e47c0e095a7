"""The answer to `maintainer simulate`: what would a cache of another size keep? Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec

from maintainer.errors import MaintainerError
from maintainer.model.history import History
from maintainer.model.limits import KeepFree
from maintainer.report.model import Report, StoreReport
from maintainer.report.page.cells import Cell, Table
from maintainer.report.words import format_count, format_moment, format_share, format_size
from maintainer.simulation import Policy, PolicyName, SimulatedCache, policies, simulate

DEFAULT_KEEP_FREE = KeepFree(share=0.15)
"""How much of the quota the simulated runs keep free, if no settings say it."""
_SHARES = (10, 25, 50, 100)
"""In per cent of all that was written: the sizes to simulate if none are given."""
_NOT_OURS = ("foreign", "others", "unreadable")


class Simulation(msgspec.Struct, frozen=True):
    """What builds would have found in caches of several sizes."""

    target: str
    since: datetime
    """The time of the first build in the database."""
    until: datetime
    """The time of the last one."""
    builds: int
    """Exports that the database remembers."""
    results: int
    """Results that they exported, each as often as a build did."""
    findable: int
    """Those of them that a build before had exported: a cache without a quota returns all."""
    written: int
    """Bytes of all layers."""
    others: int
    """Bytes that other tools, and refs that the token cannot read, store now."""
    caches: tuple[SimulatedCache, ...]
    """One for each quota and policy."""
    notes: tuple[str, ...]
    """What the numbers mean, and what the database cannot know."""


def simulate_cache(
    report: Report,
    history: History,
    *,
    quotas: Sequence[int] = (),
    policy: PolicyName | None = None,
    keep_free: KeepFree = DEFAULT_KEEP_FREE,
) -> Simulation:
    """Simulate the cache of a report; without quotas, some around its own.

    Raises MaintainerError if there is nothing to simulate.
    """
    if not history.builds:
        raise MaintainerError(_why_no_export(report.store))
    known = policies(keep_free, evicts=report.store.evicted_by is not None)
    chosen = [one for one in known if policy in (None, one.name)]
    if not chosen:
        names = " or ".join(one.name for one in known)
        raise MaintainerError(f"nothing evicts from a {report.store.noun}: use {names}")
    parts = report.space.parts if report.space else ()
    return Simulation(
        target=report.target,
        since=history.builds[0].at,
        until=history.builds[-1].at,
        builds=len(history.builds),
        results=sum(len(build.keys) for build in history.builds),
        findable=history.findable,
        written=history.written,
        others=sum(part.size for part in parts if part.kind in _NOT_OURS),
        caches=simulate(history, dict.fromkeys(quotas) or _some_quotas(report, history), chosen),
        notes=tuple(_notes(report, chosen, keep_free)),
    )


def _why_no_export(store: StoreReport) -> str:
    if store.numbered:
        return "the database remembers no export: run `maintainer gc` after a build"
    return (
        f"the database remembers no export: of a {store.noun_of_name} it knows the last one only, "
        "until a run has written that itself"
    )


def _some_quotas(report: Report, history: History) -> Sequence[int]:
    """Return parts of all that was written, and the quota if it is less than that."""
    quota = (report.space.quota if report.space else None) or 0
    parts = {max(history.written * share // 100, 1) for share in _SHARES}
    return sorted(parts | {quota} if 0 < quota < history.written else parts)


_BY_NAME: Mapping[PolicyName, str] = {
    "github": "GitHub alone: it evicts single layers, those used longest ago first.",
    "daily": "Once a day, a run lets whole results leave, so that {free} is free.",
    "room": "After each build, whole results leave if the quota is exceeded.",
}


def _notes(report: Report, chosen: Iterable[Policy], keep_free: KeepFree) -> Iterator[str]:
    size, share = format_size(keep_free.size), format_share(keep_free.share)
    free = size if keep_free.size else f"{share} of the quota"
    for one in chosen:
        between = " In between, GitHub evicts." if one.daily and one.after_build else ""
        yield f"{one.name}: {_BY_NAME[one.name].format(free=free)}{between}"
    yield (
        "Builds that export nothing are not in the database, nor are exports that another one "
        "replaced before a run saw them. It keeps the last 50 generations of an index for 30 days "
        "after they are gone."
    )
    yield "Layers that builds had to make again count once, as a large enough cache returns them."
    yield (
        "Only layers are simulated, and each counts once, however many refs store it. Indexes and "
        "other tools need room beside them."
    )
    if report.store.evicted_by:
        yield "GitHub also evicts what nobody has used for a week. That is not simulated."


def format_simulation(simulation: Simulation) -> Iterator[str]:
    """Return in lines what was simulated."""
    exports, results = format_count(simulation.builds, "export"), f"{simulation.results:,} results"
    since, until = format_moment(simulation.since), format_moment(simulation.until)
    when = f"at {since}" if since == until else f"from {since} to {until}"
    yield (
        f"{exports} {when} needed {results} and wrote {format_size(simulation.written)}. "
        f"{simulation.findable:,} of the results had been exported before: a cache without a quota "
        "returns these."
    )
    if simulation.builds > 1 and simulation.since == simulation.until:
        yield "All were found at one time, which says little: simulate again after more builds."
    if simulation.others:
        yield f"Everything else takes {format_size(simulation.others)} now, which comes on top."


def caches_table(simulation: Simulation) -> Table:
    """Return what builds would have found, for each quota and policy."""
    rows = tuple(
        (
            _size(one.quota),
            Cell(one.policy),
            Cell(f"{one.found:,}", one.found),
            _share(one.found, simulation.findable),
            _size(one.largest),
            _size(one.size),
        )
        for one in simulation.caches
    )
    columns = ("quota", "policy", "found", "share", "stored at most", "in the end")
    numbers = frozenset(columns) - {"policy"}
    return Table("", columns, numbers, rows)


def quotas_table(simulation: Simulation) -> Table:
    """Return the results that builds would have found: a row for each quota, and a column for each
    policy.
    """
    found = {(one.quota, one.policy): one.found for one in simulation.caches}
    quotas = dict.fromkeys(one.quota for one in simulation.caches)
    names = dict.fromkeys(one.policy for one in simulation.caches)
    rows = tuple(
        (
            _size(quota),
            *(_found(found[quota, policy], simulation.findable) for policy in names),
        )
        for quota in quotas
    )
    columns = ("quota", *names)
    return Table("Results found", columns, frozenset(columns[1:]), rows)


def _found(some: int, of: int) -> Cell:
    share = f" ({format_share(some / of)})" if of else ""
    return Cell(f"{some:,}{share}", some)


def found_table(simulation: Simulation) -> Table:
    """Return the share of the results that builds found up to each time, newest first, in caches
    with a daily run.
    """
    return _over_time("Results found so far", simulation, _shares_found)


def stored_table(simulation: Simulation) -> Table:
    """Return the bytes stored at each time, newest first, in caches with a daily run."""
    return _over_time(
        "Bytes stored", simulation, lambda cache: [_size(point.size) for point in cache.points]
    )


def _shares_found(cache: SimulatedCache) -> list[Cell]:
    needed = accumulate(point.needed for point in cache.points)
    found = accumulate(point.found for point in cache.points)
    return [_share(some, of) for some, of in zip(found, needed, strict=True)]


def _over_time(
    title: str, simulation: Simulation, cells: Callable[[SimulatedCache], Sequence[Cell]]
) -> Table:
    caches = [one for one in simulation.caches if one.policy == "daily"]
    points = caches[0].points if caches else ()
    times = [Cell(format_moment(one.at), one.at.timestamp()) for one in points]
    names = [format_size(one.quota) for one in caches]
    rows = tuple(zip(times, *map(cells, caches), strict=True))[::-1]
    return Table(title, ("time", *names), frozenset(("time", *names)), rows)


def _size(size: int) -> Cell:
    return Cell(format_size(size), size)


def _share(some: int, of: int) -> Cell:
    return Cell(format_share(some / of), some / of) if of else Cell("")
