"""Decodes JSON into values of a type, in any number of threads."""

from threading import Lock
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")


JSON_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises if something is not what it should be."""


def decode_json(content: bytes | str, kind: type[_T]) -> _T:
    """Return a value of this type. Raises one of JSON_ERRORS.

    msgspec learns about a class when it first decodes into it. While one thread is doing that,
    another one that decodes into the same class would end the process with a segmentation fault.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        with _LEARNING:
            decoder = _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    value: _T = decoder.decode(content)
    return value


_LEARNING = Lock()
_DECODERS: dict[object, msgspec.json.Decoder[Any]] = {}
