"""Untrusted text, made safe to print."""

import re
import unicodedata
from collections.abc import Sequence

NUL = "\0"
_ELLIPSIS = "…"
_HIDING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U0001d159\U0001d173-\U0001d17a\U000e0100-\U000e01ef]"
)
"""Invisible or blank characters that Python considers printable.

Source: Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties, the blank of Braille, and a
note head without a shape.
"""
_COMMAND = re.compile(r":(?=:)|#(?=#\[)")


def printable(text: str, limit: int = 200) -> str:
    r"""Return `text` in one line of at most `limit` characters that show what they are.

    Characters that move the cursor, end a line, change the direction of text, are invisible, or
    look like a space become `\n`, `\xNN`, `\uNNNN` or `\UNNNNNNNN`. A text that is too long ends
    in an ellipsis, never inside an escape.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    room = limit
    for character in text:
        is_shown = character.isprintable() and not _HIDING.match(character)
        piece = character if is_shown else character.encode("unicode_escape").decode()
        if len(piece) > room:
            return _cut(shown, limit)
        shown.append(piece)
        room -= len(piece)
    return "".join(shown)


def loggable(text: str, limit: int = 200) -> str:
    """Return `text` printable, and without commands for GitHub's runner.

    The runner obeys commands in what a step prints: `::error::…` at the start of a line,
    `##[error]…` anywhere.
    """
    return _COMMAND.sub(lambda match: rf"\x{ord(match[0]):02x}", printable(text, limit))


def printable_names(names: Sequence[str], most: int) -> str:
    """Return the first names of a list, each of them printable; an ellipsis stands for others."""
    return ", ".join(map(printable, names[:most])) + (", …" if len(names) > most else "")


def show_nul(text: str) -> str:
    r"""Return `text` with `\x00` in place of each NUL, which databases cannot store."""
    return text.replace(NUL, r"\x00")


def is_unicode(text: str) -> bool:
    """Whether text can be stored. Bytes that are not UTF-8 become lone surrogates, which cannot.

    Neither can NUL, in PostgreSQL.
    """
    return NUL not in text and not any(
        unicodedata.category(character) == "Cs" for character in text
    )


def _cut(shown: list[str], limit: int) -> str:
    length = sum(map(len, shown))
    while shown and length > limit - len(_ELLIPSIS):
        length -= len(shown.pop())
    return "".join([*shown, _ELLIPSIS])
