"""Where the database is. Most often nobody configures anything else that a report needs, and then
the settings, which take long to import, need not be read.
"""

import os

PREFIX = "MAINTAINER_"
"""What the names of all our variables begin with."""
DEFAULT = "sqlite:///maintainer.db"


def check_database(url: str) -> str:
    """Accept SQLite files only: memory would forget everything. Raises ValueError."""
    path = url.removeprefix("sqlite:///")
    if path in (url, "") or path.startswith((":memory:", "file:")) or "?" in path:
        raise ValueError("is not a valid URL of an SQLite file; use sqlite:///maintainer.db")
    return url


def is_configured() -> bool:
    """Whether a variable of ours is set, so that the settings must be read and checked."""
    return any(name.upper().startswith(PREFIX) for name in os.environ)
