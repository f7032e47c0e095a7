"""Where the database is. Most often nobody configures anything else that a report needs, and then
the settings, which take long to import, need not be read.
"""

import os
import re

PREFIX = "MAINTAINER_"
"""What the names of all our variables begin with."""
DEFAULT = "sqlite:///maintainer.db"

_SQLITE = "sqlite:///"
_OTHER = re.compile(r":memory:|[a-z][a-z0-9+]+:", re.IGNORECASE)
"""What SQLite, or SQLAlchemy, would not take for the path of a file."""


def check_database(place: str) -> str:
    """Return the URL of a database, which is given as a URL or as the path of a file.

    Only SQLite files: memory would forget everything. Raises ValueError.
    """
    path = place.removeprefix(_SQLITE)
    if not path or "?" in path or _OTHER.match(path):
        raise ValueError("is not a valid SQLite file; use maintainer.db or sqlite:///maintainer.db")
    return _SQLITE + path


def is_configured() -> bool:
    """Whether a variable of ours is set, so that the settings must be read and checked."""
    return any(name.upper().startswith(PREFIX) for name in os.environ)
