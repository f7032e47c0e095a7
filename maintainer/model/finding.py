"""What a check of the set-up found. Pure."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Something works less well than it could."""
    PROBLEM = "problem"
    """A run would fail, or do only a part of its work."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked."""

    subject: str
    """What was checked, in a word or two: `token`, `clock`."""
    level: Level
    sentence: str
    advice: str = ""
    """What to do about it; empty if there is nothing to do."""


def ok(subject: str, sentence: str) -> Finding:
    """Return the finding that something is as it should be."""
    return Finding(subject, Level.OK, sentence)


def note(subject: str, sentence: str, advice: str = "") -> Finding:
    """Return the finding that something works less well than it could."""
    return Finding(subject, Level.NOTE, sentence, advice)


def problem(subject: str, sentence: str, advice: str = "") -> Finding:
    """Return the finding that something does not work."""
    return Finding(subject, Level.PROBLEM, sentence, advice)
