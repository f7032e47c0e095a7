"""Outcomes of actions, as values. Pure."""

import msgspec

from maintainer.model.reason import Reason, code_of, to_code


class Base(msgspec.Struct, frozen=True, tag_field="code", tag=to_code):
    """The base of all outcomes: a code that identifies each class."""


class Planned(Base, frozen=True):
    """It was not tried, or not tried yet."""


class Done(Base, frozen=True):
    """It was carried out."""


class AlreadyGone(Base, frozen=True):
    """The entry to delete no longer existed."""


class Kept(Base, frozen=True):
    """It was decided to change nothing."""


class Skipped(Base, frozen=True):
    """It became forbidden or unnecessary."""

    reason: Reason
    """Why, as a value."""


class Deferred(Base, frozen=True):
    """It is deferred to the next run."""

    reason: Reason
    """Why, as a value."""


class Failed(Base, frozen=True):
    """It was tried and failed. Whether it was carried out is unknown, if the answer was lost."""

    problem: str
    """The message of the error."""


class Refused(Base, frozen=True):
    """The store refused it, so nothing was deleted."""

    problem: str
    """The message of the error."""


Outcome = Planned | Done | AlreadyGone | Kept | Skipped | Deferred | Failed | Refused
"""Every outcome."""

CARRIED_OUT = (Done, AlreadyGone)
"""After these, what was decided is so: an entry to delete no longer exists."""
CARRIED_OUT_CODES = frozenset(code_of(one()) for one in CARRIED_OUT)
