"""A SQLite file as the ledger uses it: durable, shared by processes, at the schema this code knows."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from darkroom.errors import BadSetting
from darkroom.ledger.statements import read_migrations, read_queries

OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables; RETURNING is older."""

BUSY_S = 60.0
"""How long a transaction waits for another process's. They take milliseconds.

It may be longer than a lease: who would take a lease waits for the same lock as who would prolong it, and then leaves
them the time to do so (see sweep.py).
"""

_DIALECT = files("darkroom.ledger") / "sql" / "sqlite"


class Statements:
    """The named queries, run on a connection whose turn it is."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queries = read_queries(_DIALECT)

    def all(self, query: str, /, **values: object) -> list[sqlite3.Row]:
        return self._connection.execute(self._queries[query], values).fetchall()

    def one(self, query: str, /, **values: object) -> Any:
        """The first row, or None if there is none."""
        rows = self.all(query, **values)
        return rows[0] if rows else None


class SqliteFile:
    """A connection to write and one to read, each used by one thread at a time: reads don't wait for writes.

    In SQL, clock() is `clock` as it was when the transaction began (as now() is in PostgreSQL). Raises `BadSetting` if
    the file can't be used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            wanted = ".".join(map(str, OLDEST_SQLITE))
            raise BadSetting(f"this Python has SQLite {sqlite3.sqlite_version}; the ledger needs {wanted} or newer")
        self._path = path
        self._lock = threading.Lock()
        self._reading_lock = threading.Lock()
        self._clock = clock
        self._now = self._read_at = clock()
        try:
            self._connection = self._connect(lambda: self._now)
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error
        try:
            self._set_up()
            self._reader = self._connect(lambda: self._read_at)
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._unusable(str(error)) from error
            raise
        self._reader.execute("PRAGMA query_only = ON")
        self._statements = Statements(self._connection)
        self._queries = Statements(self._reader)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Statements]:
        """All of it or nothing; on disk at the end. Not `durable`: a power cut may undo it, a killed process not."""
        with self._lock:
            if not durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._begun():
                    yield self._statements
            finally:
                if not durable:
                    self._connection.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def reading(self) -> Iterator[Statements]:
        """For queries that change nothing. They see what was committed before; between two of them others may write."""
        with self._reading_lock:
            self._read_at = self._clock()
            yield self._queries

    def close(self) -> None:
        with self._reading_lock:
            self._reader.close()
        with self._lock:
            self._connection.close()

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._now = self._clock()
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _connect(self, clock: Callable[[], float]) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.create_function("clock", 0, clock)
        return connection

    def _set_up(self) -> None:
        connection = self._connection
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise self._unusable("its file system has no shared memory (a network share?)")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk there
        connection.execute("PRAGMA foreign_keys = ON")
        self._migrate(read_migrations(_DIALECT))

    def _migrate(self, migrations: list[str]) -> None:
        if self._version() == len(migrations):
            return
        with self._begun():
            version = self._version()
            if version > len(migrations):
                raise self._unusable(
                    f"a newer Darkroom wrote it (schema {version}, this one knows {len(migrations)}): upgrade Darkroom"
                )
            for text in migrations[version:]:
                for statement in _split(text):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _unusable(self, reason: str) -> BadSetting:
        return BadSetting(f"the ledger {self._path} can't be used: {reason} (DARKROOM_DATA names its folder)")


def _split(text: str) -> Iterator[str]:
    """A script's statements, one by one: `executescript` would commit in between."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
