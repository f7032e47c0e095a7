"""Which targets the first page shows: all of a few, and of thousands those with problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode

from maintainer.graph.summaries import Overview

PAGE = 50
"""Targets on a page."""
ORDER = ("bad", "attention", "none", "listed", "good")
"""Problems come first."""
_PROBLEMS = ("bad", "attention")
_MAX_TEXT = 200
_MAX_DIGITS = 6

Show = Literal["all", "problems"]


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody wants to see."""

    text: str = ""
    """A part of the name of a target, or of its cache."""
    show: Show | None = None
    """None: all targets if they are few or searched for, else only problems."""
    page: int = 1


def read_query(parameters: Mapping[str, str]) -> Query:
    """Read the query of an address; what is not valid is not there."""
    number = parameters.get("page", "")
    is_number = number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS
    show = parameters.get("show")
    return Query(
        text=parameters.get("q", "").strip()[:_MAX_TEXT],
        show="all" if show == "all" else "problems" if show == "problems" else None,
        page=max(1, int(number)) if is_number else 1,
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """A page of targets."""

    query: Query
    show: Show
    counts: Mapping[str, int]
    """How many targets there are of each level, selected or not."""
    selected: int
    """How many are on all pages."""
    shown: Sequence[tuple[str, Overview]]
    """Those on this page, with their levels."""

    @property
    def total(self) -> int:
        """How many targets there are."""
        return sum(self.counts.values())

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return _count_pages(self.selected)

    @property
    def page(self) -> int:
        """The number of this page."""
        return min(self.query.page, self.pages)

    def path(self, *, page: int = 1, show: Show | None = None) -> str:
        """Return the address of another page of the same search."""
        given = {"q": self.query.text, "show": show or self.query.show or ""}
        given |= {"page": str(page) if page > 1 else ""}
        query = urlencode({key: value for key, value in given.items() if value})
        return f"/?{query}" if query else "/"


def choose(targets: Sequence[Overview], query: Query, now: datetime) -> Selection:
    """Choose the targets of a page: problems first, then by name."""
    levels = [(one.level(now), one) for one in targets]
    text = query.text.casefold()
    show: Show = query.show or ("problems" if len(targets) > PAGE and not text else "all")
    selected = [
        (level, one)
        for level, one in levels
        if (show == "all" or level in _PROBLEMS) and _matches(one, text)
    ]
    selected.sort(key=lambda pair: (ORDER.index(pair[0]), pair[1].status.name))
    start = (min(query.page, _count_pages(len(selected))) - 1) * PAGE
    counts = Counter(level for level, _ in levels)
    shown = selected[start : start + PAGE]
    return Selection(query, show, counts, len(selected), shown)


def _count_pages(selected: int) -> int:
    return max(1, -(-selected // PAGE))


def _matches(one: Overview, text: str) -> bool:
    status = one.status
    return text in status.name.casefold() or text in (status.target or "").casefold()
