"""The caches that a database knows, by the names that people have for them."""

from sqlalchemy import BindParameter, Connection, bindparam, or_, select

from maintainer.errors import NoReportError
from maintainer.graph.tables import SCHEDULED, TARGET
from maintainer.sanitize import is_unicode, printable, printable_names

_NAMED = 5
"""So many names are listed in an error."""


def find_cache(connection: Connection, name: str) -> str:
    """Return the name of a cache, given that, or the name of the service's target that it is.

    Raises NoReportError if the database has nothing of it.
    """
    found: str | None = connection.scalar(_FIND, {"asked": name}) if is_unicode(name) else None
    if found is None:
        raise NoReportError(_explain(connection, name))
    return found


def _explain(connection: Connection, name: str) -> str:
    if is_unicode(name) and connection.scalar(_IS_TARGET, {"asked": name}):
        return f"target {printable(name)} has not run yet"
    return f"the database has nothing of {printable(name)}; {_format(connection)}"


def _format(connection: Connection) -> str:
    some = select(TARGET.c.name).order_by(TARGET.c.name).limit(_NAMED + 1)
    known = connection.scalars(some).all()
    return f"it has: {printable_names(known, _NAMED) or 'none'}"


# No target can have the name of a cache: that has a colon.
_asked: BindParameter[str] = bindparam("asked")
_IS_TARGET = select(SCHEDULED.c.name).where(SCHEDULED.c.name == _asked)
_FIND = select(TARGET.c.name).where(
    or_(
        TARGET.c.name == _asked,
        TARGET.c.name.in_(select(SCHEDULED.c.target).where(SCHEDULED.c.name == _asked)),
    )
)
