"""All caches together: what takes their space, which are worst, what policies would free."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from maintainer.graph.summaries import Overview
from maintainer.report.model import Space
from maintainer.serve.web.selection import ORDER

_WORST = 20
_TOOLS = 10
"""Tools that are shown one by one."""
_KEPT_FREE = 0.1
_UNUSED = timedelta(days=5)
_KINDS = {
    "reachable": "layers and indexes that builds can use",
    "due": "due to be deleted by the next run",
    "dangling": "unreferenced layers, within the grace period",
    "superseded": "superseded indexes",
    "unread": "indexes that were not read",
    "unreadable": "refs that the token cannot read",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What takes space."""

    name: str
    size: int
    """Bytes."""
    share: float


@dataclass(frozen=True, slots=True)
class Saving:
    """What a policy would free."""

    policy: str
    meaning: str
    size: int
    """Bytes."""
    targets: int


@dataclass(frozen=True, slots=True)
class Worst:
    """A target that needs attention, or takes much space."""

    level: str
    overview: Overview


@dataclass(frozen=True, slots=True)
class Fleet:
    """All caches."""

    targets: int
    counts: Mapping[str, int]
    used: int
    """Bytes."""
    quota: int
    """Bytes, of all caches that have one."""
    parts: Sequence[Part]
    worst: Sequence[Worst]
    savings: Sequence[Saving]


def measure_fleet(
    targets: Sequence[Overview], spaces: Iterable[tuple[str, Space]], now: datetime
) -> Fleet:
    """Add up all caches, as their last runs saw them."""
    kinds, tools = Counter[str](), Counter[str]()
    savings = _Savings(now.date())
    for _, space in spaces:
        for part in space.parts:
            if part.kind in ("foreign", "others"):
                tools[part.name if part.kind == "foreign" else "other tools"] += part.size
            elif part.kind != "free":
                kinds[part.kind] += part.size
        savings.add(space)
    levels = [(one.level(now), one) for one in targets]
    known = [one.summary for one in targets if one.summary]
    used = sum(one.used for one in known)
    return Fleet(
        targets=len(targets),
        counts=Counter(level for level, _ in levels),
        used=used,
        quota=sum(one.quota or 0 for one in known),
        parts=tuple(_parts(kinds, tools, used)),
        worst=tuple(Worst(*one) for one in sorted(levels, key=_badness)[:_WORST]),
        savings=tuple(savings.list()),
    )


def _badness(pair: tuple[str, Overview]) -> tuple[int, int, str]:
    """Sort by the level, and then the largest first."""
    level, one = pair
    return ORDER.index(level), -(one.summary.used if one.summary else 0), one.status.name


def _parts(kinds: Counter[str], tools: Counter[str], used: int) -> Iterator[Part]:
    shown = {_KINDS.get(kind, kind): size for kind, size in kinds.items()}
    listed = dict(tools.most_common(_TOOLS))
    shown |= {f"entries of other tools: {name}…": size for name, size in listed.items()}
    if rest := tools.total() - sum(listed.values()):
        shown["entries of other tools, not listed"] = rest
    for name, size in sorted(shown.items(), key=lambda pair: (-pair[1], pair[0])):
        if size:
            yield Part(name, size, size / used if used else 0.0)


class _Savings:
    """Adds up what policies would free."""

    def __init__(self, today: date) -> None:
        self._limit = today - _UNUSED
        self._sizes = Counter[str]()
        self._targets = Counter[str]()

    def add(self, space: Space) -> None:
        """Add a cache."""
        due = sum(part.size for part in space.parts if part.kind == "due")
        self._add("due", due)
        if space.quota is not None:
            self._add("keep_free", max(0, space.used - int(space.quota * (1 - _KEPT_FREE))))
        old = sum(one.size for one in space.used_days if one.day is None or one.day < self._limit)
        foreign = sum(part.size for part in space.parts if part.kind in ("foreign", "others"))
        self._add("unused_for", min(old, foreign))

    def _add(self, policy: str, size: int) -> None:
        self._sizes[policy] += size
        self._targets[policy] += size > 0

    def list(self) -> Iterator[Saving]:
        """Yield the policies, the one that frees most first."""
        for policy, meaning in (
            ("due", "what the next runs delete, with the settings of today"),
            ("keep_free", 'keep_free = "10%": what is used least leaves nearly full caches'),
            ("unused_for", 'rules with unused_for = "5d" for other tools: at most'),
        ):
            yield Saving(policy, meaning, self._sizes[policy], self._targets[policy])
