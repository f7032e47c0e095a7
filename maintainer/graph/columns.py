"""The types of columns: how the tables hold times, contents, reasons and outcomes."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from sqlalchemy import (
    Dialect,
    LargeBinary,
    TypeDecorator,
)

from maintainer.graph.dialect import TEXT, WHOLE
from maintainer.model.content import Content, pack, unpack
from maintainer.model.outcome import Outcome
from maintainer.model.reason import Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since 1970; the views show it as text."""

    impl = WHOLE
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return the number, which needs the zone."""
        del dialect
        return None if value is None else to_number(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the time, in UTC."""
        del dialect
        return None if value is None else from_number(value)


def to_number(moment: datetime) -> int:
    """Return a time as the tables hold it."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=4096)
def from_number(number: int) -> datetime:
    """Return a time that the tables hold as a number. Many rows have the same, one in several."""
    return _EPOCH + timedelta(microseconds=number)


class Packed(TypeDecorator[bytes]):
    """Some content, compressed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | Content | None, dialect: Dialect) -> bytes | None:
        """Compress it, unless it is compressed."""
        del dialect
        if isinstance(value, Content):
            return value.packed
        return None if value is None else pack(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Return what was compressed."""
        del dialect
        return None if value is None else unpack(value)


class ReasonText(TypeDecorator[Reason]):
    """A reason, kept as the text of a JSON object."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: Reason | None, dialect: Dialect) -> str | None:
        """Return the text of a reason."""
        del dialect
        return None if value is None else to_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Reason | None:
        """Return the reason of a text."""
        del dialect
        return None if value is None else _decode_reason(value)


class OutcomeText(TypeDecorator[Outcome]):
    """An outcome, kept as the text of a JSON object."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: Outcome | None, dialect: Dialect) -> str | None:
        """Return the text of an outcome."""
        del dialect
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Outcome | None:
        """Return the outcome of a text."""
        del dialect
        return None if value is None else _OUTCOMES.decode(value)


def to_text(reason: Reason) -> str:
    """Return a reason as the tables hold it."""
    return msgspec.json.encode(reason).decode()


_REASONS: msgspec.json.Decoder[Reason] = msgspec.json.Decoder(Reason)
_OUTCOMES: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)


@lru_cache(maxsize=4096)
def _decode_reason(text: str) -> Reason:
    """Decode a reason. Many entries have the same, and then they share one object."""
    return _REASONS.decode(text)
