"""Outcomes: what became of an action, as values. Pure."""

import msgspec

from maintainer.model.reason import Reason, to_code


class Base(msgspec.Struct, frozen=True, tag_field="code", tag=to_code):
    """What all outcomes have in common: a code, by which they are told apart."""


class Planned(Base, frozen=True):
    """It was not tried, or not yet."""


class Done(Base, frozen=True):
    """It was carried out."""


class AlreadyGone(Base, frozen=True):
    """What was to be deleted did not exist any more."""


class Kept(Base, frozen=True):
    """It was decided to change nothing."""


class Skipped(Base, frozen=True):
    """It turned out that it must not be done, or need not."""

    reason: Reason


class Deferred(Base, frozen=True):
    """It is deferred to the next run."""

    reason: Reason


class Failed(Base, frozen=True):
    """It was tried and failed."""

    problem: str
    """What the error said."""


Outcome = Planned | Done | AlreadyGone | Kept | Skipped | Deferred | Failed
"""Every outcome that there is."""
