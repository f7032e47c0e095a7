"""The database: opened, migrated, and locked by runs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import TypeVar

from sqlalchemy import Connection, delete, false, insert, inspect, select
from sqlalchemy.exc import DatabaseError as SqlError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from maintainer.database_url import is_postgresql
from maintainer.errors import DatabaseError, how_to_install
from maintainer.graph.backend import TOO_MANY_TRANSACTIONS, Backend, HeldError
from maintainer.graph.create import create
from maintainer.graph.lease import Lease, take
from maintainer.graph.revision import NEWEST, VERSIONS, read_revision
from maintainer.graph.sqlite import SqliteFile
from maintainer.graph.tables import LEASE, METADATA, RUN, TARGET

_T = TypeVar("_T")


@contextmanager
def open_database(url: str) -> Iterator["Database"]:
    """Open a database, at this version's revision. Raises DatabaseError."""
    with closing(Database(url)) as database:
        database.upgrade()
        yield database


class Database:
    """A database. Every method raises DatabaseError, in one line, if it is unusable."""

    def __init__(self, url: str) -> None:
        self._backend = _find_backend(url)
        self.name = self._backend.name
        """What messages call it: a path, or a URL without a password."""

    def close(self) -> None:
        """Close all connections."""
        self._backend.engine.dispose()

    def upgrade(self) -> None:
        """Upgrade the schema to this version; creates it, and a file, if it does not exist."""
        with self._translate_errors():
            self._migrate()
            self._backend.finish_migration()

    def _migrate(self) -> None:
        with self._backend.readers.begin() as connection:
            if read_revision(connection) == NEWEST:
                return
        with self._backend.engine.begin() as connection:
            self._backend.begin_migration(connection)
            revision = read_revision(connection)
            if revision is None:
                self._create(connection)
            elif revision != NEWEST:
                self._upgrade(connection)

    def _create(self, connection: Connection) -> None:
        if self._belongs_to_others(connection):
            raise DatabaseError(f"the database {self.name} belongs to another program")
        create(connection)

    def _upgrade(self, connection: Connection) -> None:
        from maintainer.graph.migrate import migrate  # noqa: PLC0415 - it imports Alembic

        if not migrate(connection):
            raise self._made_by_newer()

    def _belongs_to_others(self, connection: Connection) -> bool:
        """Whether there are tables that another program has made, in whose way ours would be."""
        names = inspect(connection).get_table_names()
        ours = {VERSIONS.name, *METADATA.tables}
        return bool(names if connection.dialect.name == "sqlite" else ours & set(names))

    def exists(self) -> bool:
        """Whether there is a file, or, on a server, whether it has our tables."""
        return self._backend.exists()

    def revision(self) -> str | None:
        """Return the revision of the schema; None if the file has none yet."""
        if not self.exists():
            return None
        with self._translate_errors(), self._backend.readers.connect() as connection:
            return read_revision(connection)

    def refuse_newer(self) -> None:
        """Raise DatabaseError if a newer version has migrated it since this process began."""
        if self.revision() not in (None, NEWEST):
            raise self._made_by_newer()

    def _made_by_newer(self) -> DatabaseError:
        return DatabaseError(
            f"the database {self.name} was made by a newer version: upgrade maintainer"
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that may write, committed at the end, rolled back on an error.

        It waits for other writers. A transaction that reads first and writes later cannot wait: if
        somebody has written in between, SQLite reports at once that the database is locked.
        """
        with self._translate_errors(), self._backend.engine.begin() as connection:
            yield connection

    def check_writable(self) -> None:
        """Raise DatabaseError if a run could not begin there. Whatever it writes is rolled back."""
        with self._translate_errors(), self._backend.engine.connect() as connection:
            connection.execute(delete(LEASE).where(false()))
            connection.execute(insert(TARGET).values(name=""))
            connection.exec_driver_sql("CREATE TEMPORARY TABLE listed_by_doctor (id INTEGER)")
            connection.rollback()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a read-only transaction: it never waits, even for concurrent writers."""
        with self._translate_errors(), self._backend.readers.begin() as connection:
            yield connection

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep runs off all targets. Raises DatabaseError, which says who works on one."""
        with ExitStack() as stack:
            if self.is_shared:
                self._enter(stack, self._backend.lock_all(), None)
            else:
                stack.enter_context(self.lease(""))
            yield

    @contextmanager
    def lease(self, target: str) -> Iterator[Lease]:
        """Have the right to work on a target; a file is always held as a whole.

        Raises DatabaseError, which says who holds it.
        """
        name = target if self.is_shared else ""
        with ExitStack() as stack:
            locks = [self._enter(stack, self._backend.lock_out(), target)]
            try:
                locks.append(stack.enter_context(self._backend.lock(name)))
                is_locked = True
            except HeldError:
                is_locked = False  # By a run that may be paused: then its lease is over.
            with self.begin() as connection:
                token = take(connection, name, is_locked=is_locked)
            if token is None:
                raise self._held(target)
            held = Lease(name, token, self.begin, name or self.name)
            with held.renewing(*locks):
                yield held
            self._backend.compact()

    def _enter(self, stack: ExitStack, lock: AbstractContextManager[_T], target: str | None) -> _T:
        try:
            return stack.enter_context(lock)
        except HeldError:
            raise self._held(target) from None

    def _held(self, target: str | None) -> DatabaseError:
        what = f"{self.name} for {target}" if target and self.is_shared else self.name
        return DatabaseError(
            f"another run holds the database {what}{self._holder(target)}: wait until it ends"
        )

    @property
    def is_shared(self) -> bool:
        """Whether runs on different targets may work on it at the same time."""
        return not isinstance(self._backend, SqliteFile)

    @contextmanager
    def lock_service(self) -> Iterator[Callable[[], None]]:
        """Keep other services off; what it gives has to be called from time to time.

        Both raise DatabaseError if there is another service.
        """
        with ExitStack() as stack:
            with self._refuse_service():
                keep = stack.enter_context(self._backend.lock_service())
            yield self._refuse_service()(keep)

    @contextmanager
    def _refuse_service(self) -> Iterator[None]:
        try:
            yield
        except HeldError:
            raise DatabaseError(f"another service works on the database {self.name}") from None

    def _holder(self, target: str | None) -> str:
        """Return who is running, as far as the database shows."""
        running = select(RUN.c.process, RUN.c.started_at).where(RUN.c.status == "running")
        if target is not None and self.is_shared:
            running = running.join(TARGET, TARGET.c.id == RUN.c.target_id).where(
                TARGET.c.name == target
            )
        try:
            with self._translate_errors(), self._backend.readers.connect() as connection:
                row = connection.execute(running.order_by(RUN.c.id.desc())).first()
        except DatabaseError:
            return ""
        return f" ({row.process}, since {row.started_at:%Y-%m-%d %H:%M:%S} UTC)" if row else ""

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Format an error of the database in one line."""
        try:
            yield
        except SqlError as error:
            raise DatabaseError(self._backend.explain(error)) from None
        except PoolTimeoutError:
            raise DatabaseError(
                f"the database {self.name} cannot be used: {TOO_MANY_TRANSACTIONS}"
            ) from None


def _find_backend(url: str) -> Backend:
    if not is_postgresql(url):
        return SqliteFile(url)
    try:
        from maintainer.graph.postgresql import PostgresqlDatabase  # noqa: PLC0415 - optional
    except ImportError:
        raise DatabaseError(
            "PostgreSQL needs the extra postgresql (psycopg is missing): "
            f"{how_to_install('postgresql')}"
        ) from None
    return PostgresqlDatabase(url)
