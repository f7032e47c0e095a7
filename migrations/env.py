"""Alembic's environment: runs on the connection that `maintainer.graph.database` hands over."""

from alembic import context

from maintainer.graph.tables import METADATA


def run_migrations() -> None:
    """Bring the database to the wanted revision, in one transaction."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
