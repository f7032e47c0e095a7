"""A new database, made without Alembic, which takes longer to import than this takes.

Alembic's own statements for an empty database are files beside the migrations. A test compares
them, and the databases that they make; `python -m maintainer.graph.migrate` writes them again.
"""

from pathlib import Path

from sqlalchemy import Connection

DIALECTS = ("sqlite", "postgresql")
_STATEMENT_END = ";\n\n"
"""Alembic writes it after each statement."""


def create(connection: Connection) -> None:
    """Make all tables and views of the newest revision, and note which one it is."""
    statements = path_of_statements(connection.dialect.name).read_text(encoding="utf-8")
    as_written = {"no_parameters": True}  # A percent sign is no place for a value.
    for statement in statements.split(_STATEMENT_END):
        if statement:
            connection.exec_driver_sql(statement, execution_options=as_written)


def path_of_statements(dialect: str) -> Path:
    """Return where the statements for a new database are."""
    return find_migrations() / f"new-{dialect}.sql"


def find_migrations() -> Path:
    """Return where the migrations are: in the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
