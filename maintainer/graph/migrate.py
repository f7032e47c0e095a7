"""Migrations: Alembic owns the schema. It takes long to import, and upgrades what exists only."""

import io

import alembic.command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from maintainer.graph.create import DIALECTS, find_migrations, path_of_statements


def migrate(connection: Connection) -> bool:
    """Bring a database to the newest revision; False if it has one that is not known here."""
    config = _configure()
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except CommandError:
        return False
    return True


def is_known(revision: str) -> bool:
    """Whether this version has a revision, and so can bring a database from it to the newest."""
    try:
        ScriptDirectory.from_config(_configure()).get_revision(revision)
    except CommandError:
        return False
    return True


def write_statements(dialect: str) -> str:
    """Return all statements that Alembic would execute in an empty database."""
    written = io.StringIO()
    config = _configure(written)
    config.attributes["dialect"] = dialect
    alembic.command.upgrade(config, "head", sql=True)
    return written.getvalue()


def _configure(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(find_migrations()).replace("%", "%%"))
    return config


if __name__ == "__main__":
    for name in DIALECTS:
        path_of_statements(name).write_text(write_statements(name), encoding="utf-8")
