"""Log lines: their context, their JSON form, and the secrets to keep out of them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from maintainer.progress import Progress

LogFormat = Literal["text", "json"]

_FIELDS = ("run", "target", "stage")

_context: ContextVar[dict[str, str | int]] = ContextVar("log context")

_LOUD = {
    # The whole URL of each request, at INFO: the query of a signed URL is a secret.
    "httpx2": logging.WARNING,
    # The headers of each answer, at DEBUG: a redirect's Location is a signed URL too.
    "httpcore2": logging.WARNING,
    # Each source of credentials that is not configured, at WARNING; the error says it in one line.
    "azure": logging.ERROR,
    # Each failure to renew credentials, at WARNING, with a traceback.
    "aiobotocore": logging.ERROR,
    "botocore": logging.ERROR,
    # Each retry, at WARNING: the store logs it itself, with its context.
    "stamina": logging.ERROR,
    # Each job, at INFO, and each lost connection, at WARNING: the worker logs what people need.
    "procrastinate": logging.ERROR,
    "psycopg.pool": logging.ERROR,
    # Starts, stops, and disconnected clients.
    "uvicorn": logging.WARNING,
}

_LIBRARIES = frozenset({"asyncio", "procrastinate", "psycopg", "psycopg_pool"})
"""They log, and raise, what is no bug: the connection to a server was lost."""


@contextmanager
def log_context(**fields: str | int) -> Iterator[None]:
    """Add context to log lines. Outer contexts keep their values."""
    # Tasks that start inside share the dictionary, so that they know the stage too.
    token = _context.set(fields | _context.get({}))
    try:
        yield
    finally:
        _context.reset(token)


class StagesInLogs:
    """Forwards progress, and adds the stage to log lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage; `probe: list entries` is one of `probe`."""
        _context.get({})["stage"] = name.partition(":")[0]
        self._progress.stage(name, total)

    def advance(self, steps: int = 1) -> None:
        """Count steps of the stage."""
        self._progress.advance(steps)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, logger; during a run also run, target, stage.

    Non-ASCII characters are escaped, so each record stays on one line, whatever a key contains.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        context = _context.get({})
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        } | {name: context[name] for name in _FIELDS if name in context}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def shorten_trouble(record: logging.LogRecord) -> bool:
    """Let a library say in one line, without a traceback, that it has lost a connection.

    Returns true, as a filter that drops nothing.
    """
    if _package(record.name) not in _LIBRARIES:
        return True
    error = record.exc_info[1] if record.exc_info else None
    facts = record.args if isinstance(record.args, tuple) else ()
    if error is None and any(isinstance(one, Exception) and _is_trouble(one) for one in facts):
        record.msg, record.args = _first_line(record.getMessage()), None
    elif error and _is_trouble(error):
        cause = error.__cause__ or error
        message = _first_line(_before(_before(record.getMessage(), repr(error)), str(error)))
        record.msg = f"{message.rstrip(' :')}: {type(cause).__name__}: {_first_line(str(cause))}"
        record.args = record.exc_info = record.exc_text = None
    return True


def _is_trouble(error: BaseException) -> bool:
    return isinstance(error, OSError) or _package(type(error).__module__) in _LIBRARIES


def _before(message: str, error: str) -> str:
    """Return a message without the error, and what follows it, if it says it itself."""
    return message.partition(error)[0] if error else message


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _package(name: str) -> str:
    return name.partition(".")[0]


def keep_secrets_out_of_logs() -> None:
    """Silence the loggers that would write signed URLs, whatever our own log level."""
    for name, level in _LOUD.items():
        logging.getLogger(name).setLevel(level)
