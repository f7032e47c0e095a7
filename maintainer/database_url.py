"""Where the database is. Most often nobody configures anything else that a report needs, and then
the settings, which take long to import, need not be read.
"""

import os
import re

from maintainer.sanitize import NUL, is_unicode

PREFIX = "MAINTAINER_"
"""What the names of all our variables begin with."""
SQLITE = "sqlite:///"
"""What precedes the path of a file, which is written as it is."""
DEFAULT = f"{SQLITE}maintainer.db"

_OTHER = re.compile(r"\s*(?::memory:|[a-z][a-z0-9+]+:)", re.IGNORECASE)
"""What SQLite, or SQLAlchemy, would not take for the path of a file."""
_POSTGRESQL = "postgresql+psycopg://"
_SPELLED = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://", re.IGNORECASE)
"""How people spell the URL of a PostgreSQL database."""
_HOST = r"(?:\[[^\]/@?]*\]|[^/@?:]*)(?::[0-9]+)?"
"""What follows its colon is a number, not the password of somebody who forgot the host."""
_REST = re.compile(rf"(?P<before>(?:[^/@?]*@)?)(?P<place>{_HOST}/[^/?#]+)(?P<query>\?.*)?")
"""`user:password@host:port/name?options`; a password with other characters is percent-encoded."""
_SECRET_OPTIONS = re.compile(r"[?&](?:password|passfile|sslpassword)=", re.IGNORECASE)


def check_database(place: str) -> str:
    """Return the URL of a database, which is given as a URL or as the path of a file.

    An SQLite file, or a database of a PostgreSQL server; memory would forget everything. Raises
    ValueError, which never contains the URL: it may contain a password.
    """
    if spelled := _SPELLED.match(place):
        rest = place[spelled.end() :]
        if not _REST.fullmatch(rest) or _SECRET_OPTIONS.search(rest) or not rest.isprintable():
            raise ValueError(
                "is not a valid PostgreSQL database; use postgresql+psycopg://USER@HOST/NAME, with "
                "special characters percent-encoded"
            )
        return _POSTGRESQL + rest
    path = place.removeprefix(SQLITE)
    if not path or "?" in path or NUL in path or _OTHER.match(path):
        raise ValueError(
            "is not a valid SQLite file or PostgreSQL database; use maintainer.db, "
            "sqlite:///maintainer.db or postgresql+psycopg://USER@HOST/NAME"
        )
    if not is_unicode(path):
        raise ValueError("is a path that is not UTF-8, so no report can contain it: rename it")
    return SQLITE + path


def is_postgresql(url: str) -> bool:
    """Whether a checked URL is one of PostgreSQL's."""
    return url.startswith(_POSTGRESQL)


def public_url(url: str) -> str:
    """Return a checked URL without its password and options, to be shown."""
    if not is_postgresql(url):
        return url
    parts = _REST.fullmatch(url.removeprefix(_POSTGRESQL))
    if parts is None:
        return _POSTGRESQL
    user = re.split("[:@]", parts["before"])[0]
    return f"{_POSTGRESQL}{user and f'{user}@'}{parts['place']}"


def is_configured() -> bool:
    """Whether a variable of ours is set, so that the settings must be read and checked."""
    return any(name.upper().startswith(PREFIX) for name in os.environ)
