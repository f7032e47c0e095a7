"""Caches that are found by a search, and the names of the targets that are made of them."""

import hashlib
import re
from dataclasses import dataclass

_VERBATIM = re.compile(r"(?!.*-[0-9a-f]{12}\Z)[A-Za-z0-9._-]{1,80}", re.ASCII)
"""A name that ends as a shortened one does is shortened too: it could be made to be the same."""
_OTHER = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_SHORTENED = 60
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class FoundCache:
    """A cache that was found. Others choose its name: it is not valid until it is checked."""

    name: str
    """Its name within the place that is searched, as filters see it."""
    store: str
    """The setting `store` of a target for it."""
    repository: str = ""
    """The setting `repository`, if it needs one."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.repository or self.store


def name_target(discovery: str, found: str) -> str:
    """Return the name of a target: that of its discovery, a dot, and that of its cache.

    It depends on nothing else, so it stays if other caches come or go. A name that no target may
    have is shortened to what is allowed of it, and gets a part of its digest. Names of discoveries
    have no dots, so two of them never name a target alike.
    """
    if _VERBATIM.fullmatch(found):
        return f"{discovery}.{found}"
    digest = hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{discovery}.{_OTHER.sub('-', found)[:_SHORTENED]}-{digest}"
