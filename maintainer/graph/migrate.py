"""Migrations: Alembic owns the schema."""

from pathlib import Path

import alembic.command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection


def migrate(connection: Connection) -> bool:
    """Bring a database to the newest revision; False if it has one that is not known here."""
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except CommandError:
        return False
    return True


def _migrations() -> Path:
    """Return where the migrations are: in the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
