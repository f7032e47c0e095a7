"""Which revision of the schema a database has, and which one this version needs.

Alembic owns the schema, and takes long to import: it is needed only when the two differ.
"""

from sqlalchemy import Connection, Text, column, inspect, select, table

NEWEST = "0001"
"""The revision that the last of the migrations leads to; a test compares the two."""
VERSIONS = table("alembic_version", column("version_num", Text))
"""Alembic's, which other programs may have, too."""


def read_revision(connection: Connection) -> str | None:
    """Return the revision of a database; None if it has none yet."""
    if not inspect(connection).has_table(VERSIONS.name):
        return None
    return connection.execute(select(VERSIONS.c.version_num)).scalar()
