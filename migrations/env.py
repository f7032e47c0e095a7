"""Alembic's environment: runs on the connection that `maintainer.graph.migrate` hands over.

Without one, it writes the statements for a dialect down.
"""

from alembic import context

from maintainer.graph.tables import METADATA


def run_migrations() -> None:
    """Bring the database to the wanted revision, in the transaction of its connection."""
    attributes = context.config.attributes
    if context.is_offline_mode():
        context.configure(dialect_name=attributes["dialect"], transactional_ddl=False)
    else:
        connection = attributes["connection"]
        context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
