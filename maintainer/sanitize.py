"""Untrusted text, made safe to print."""

import re
import unicodedata

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

    Whatever could move a cursor, end a line, turn the direction of reading, hide, or pass for a
    space becomes `\n`, `\xNN`, `\uNNNN` or `\UNNNNNNNN`. Too long a text ends in an ellipsis, never
    inside an escape.
    """
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
    """Return `text` printable and with nothing in it that GitHub's runner takes for a command.

    The runner reads what a step prints: `::error::…` at the start of a line, `##[error]…` anywhere.
    """
    return _COMMAND.sub(lambda match: rf"\x{ord(match[0]):02x}", printable(text, limit))


def is_unicode(text: str) -> bool:
    """Return whether text can be stored: bytes that are no UTF-8 reach us as halves of pairs."""
    return not any(unicodedata.category(character) == "Cs" for character in text)


def _cut(shown: list[str], limit: int) -> str:
    length = sum(map(len, shown))
    while shown and length > limit - len(_ELLIPSIS):
        length -= len(shown.pop())
    return "".join([*shown, _ELLIPSIS])
