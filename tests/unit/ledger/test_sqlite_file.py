"""The file under the SQLite ledger: how it is opened, written and brought up to date."""

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from darkroom.errors import BadSetting, StorageFull
from darkroom.ledger import sqlite_file
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.ledger.sqlite_file import SqliteFile
from darkroom.ledger.statements import read_migrations
from ledgers import PROGRESS, SettableClock, ask, make_edit, make_key

KEY = {"id": "k", "name": "n", "digest": "d", "granted_micro": 1, "rate_per_minute": None, "models": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def file(path):
    with closing(SqliteFile(path, clock=SettableClock())) as file:
        yield file


def pragma(file, name):
    return file._connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_commits_reach_the_disk(file):
    """The file is in WAL mode and every commit is synced, with foreign keys checked."""
    assert pragma(file, "journal_mode") == "wal"
    assert pragma(file, "synchronous") == 2
    assert pragma(file, "foreign_keys") == 1


def test_only_the_transaction_that_may_be_undone_is_not_synced(file):
    """A transaction that need not be durable leaves the next one durable again, also when it fails."""
    with file.transaction(durable=False):
        assert pragma(file, "synchronous") == 1
    assert pragma(file, "synchronous") == 2
    with pytest.raises(ZeroDivisionError), file.transaction(durable=False):
        raise ZeroDivisionError
    assert pragma(file, "synchronous") == 2
    with file.transaction():
        assert pragma(file, "synchronous") == 2


def test_a_failed_transaction_leaves_nothing(file):
    """What an exception interrupts is rolled back, and the next transaction goes through."""
    with pytest.raises(sqlite3.IntegrityError), file.transaction() as sql:
        assert [sql.one("create_key", **KEY)["name"] for _ in range(2)]
    with file.transaction() as sql:
        assert sql.all("all_keys") == []
        assert sql.one("create_key", **KEY)["name"] == "n"


def test_time_stands_still_in_a_transaction(path):
    """clock() is one and the same throughout a transaction, and as of its begin."""
    clock = SettableClock()
    with closing(SqliteFile(path, clock=clock)) as file:
        clock.advance(1)
        with file.transaction():
            clock.advance(1)
            assert file._connection.execute("SELECT clock()").fetchone()[0] == clock.now - 1
        with file.transaction():
            assert file._connection.execute("SELECT clock()").fetchone()[0] == clock.now


def test_reads_do_not_wait_for_writes(path):
    """While a transaction is under way, here or in another process, what was committed before it can be read."""
    with closing(SqliteFile(path, clock=SettableClock())) as file, ThreadPoolExecutor(1) as pool:

        def read():
            with file.reading() as sql:
                return sql.all("all_keys")

        with file.transaction() as sql:
            sql.one("create_key", **KEY)
            assert pool.submit(read).result(timeout=30) == []
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("DELETE FROM keys")
            assert [row["name"] for row in pool.submit(read).result(timeout=30)] == ["n"]


def test_reading_goes_by_the_time_it_begins_at(path):
    """clock() is as of the reading's begin, whatever a transaction under way began at; and nothing can be written."""
    clock = SettableClock()
    with closing(SqliteFile(path, clock=clock)) as file, file.transaction():
        clock.advance(1)
        with file.reading() as sql:
            assert file._reader.execute("SELECT clock()").fetchone()[0] == clock.now
            assert file._connection.execute("SELECT clock()").fetchone()[0] == clock.now - 1
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                sql.one("create_key", **KEY)


def test_many_may_open_a_new_file_at_once(path):
    """Of several that find no file, one makes the tables, and all can use them."""
    start = threading.Barrier(8)

    def use(_):
        start.wait(timeout=30)
        with closing(SqliteFile(path, clock=SettableClock())) as file, file.reading() as sql:
            return sql.all("all_keys")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [[]] * 8


def test_migrations_run_once_and_in_order(path, monkeypatch):
    """A file of an older schema gets the migrations it lacks, with its rows kept, and none twice."""
    monkeypatch.setattr(sqlite_file, "read_migrations", lambda _: ["CREATE TABLE a (n);\nINSERT INTO a VALUES (1);\n"])
    SqliteFile(path, clock=SettableClock()).close()
    SqliteFile(path, clock=SettableClock()).close()
    monkeypatch.setattr(
        sqlite_file, "read_migrations", lambda _: ["never again", "ALTER TABLE a ADD m;\n", "UPDATE a SET m = n + 1;\n"]
    )
    SqliteFile(path, clock=SettableClock()).close()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT n, m FROM a").fetchall() == [(1, 2)]
        assert raw.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    """Half a migration is never left behind: the file stays at its schema, and says what was wrong."""
    monkeypatch.setattr(sqlite_file, "read_migrations", lambda _: ["CREATE TABLE a (n);\n", "CREATE TABLE a (n);\n"])
    with pytest.raises(BadSetting, match="already exists"):
        SqliteFile(path, clock=SettableClock())
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT * FROM sqlite_schema").fetchall() == []
        assert raw.execute("PRAGMA user_version").fetchone() == (0,)


def test_jobs_from_before_affinity_are_claimed_in_their_turn(path, monkeypatch):
    """A file at the first schema is brought up to date; its queued jobs are of no known set, and lose nothing else."""
    monkeypatch.setattr(sqlite_file, "read_migrations", lambda folder: read_migrations(folder)[:1])
    with closing(SqliteFile(path, clock=SettableClock())) as file:
        execute = file._connection.execute
        execute(
            "INSERT INTO keys (id, name, digest, granted_micro, balance_micro, created_at) VALUES ('k','k','d',9,9,0)"
        )
        for number in range(2):
            execute(
                "INSERT INTO jobs (id, key_id, slug, edit, price_micro, work, fair_tag, created_at, changed_at) "
                "VALUES (?, 'k', 's', ?, 1, 1, ?, 0, 0)",
                [f"j{number}", json.dumps(make_edit().to_record()), number],
            )
    monkeypatch.undo()
    with closing(SqliteLedger(path, lease_s=30, retention_s=3600)) as ledger:
        (key,) = list(ledger.keys())
        ledger.accept(ask(key, job_id="new", price_micro=1))
        assert ledger.job("j0").resolve_s is None
        assert [ledger.claim("w", [""])[0].id for _ in range(3)] == ["j0", "new", "j1"]


def test_a_newer_schema_is_refused(path):
    """A file that a newer Darkroom wrote is left alone, and the remedy named."""
    SqliteFile(path, clock=SettableClock()).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 1000")
    with pytest.raises(BadSetting, match=r"schema 1000.*upgrade Darkroom"):
        SqliteFile(path, clock=SettableClock())


def test_what_is_no_ledger_is_refused(path):
    """A file of something else is left as it is, and named."""
    path.write_bytes(b"a letter, not a ledger" * 100)
    with pytest.raises(BadSetting, match=r"ledger\.db can't be used: file is not a database"):
        SqliteFile(path, clock=SettableClock())
    assert path.read_bytes().startswith(b"a letter")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """Where the file can't be made, the setting to mend is named."""
    with pytest.raises(BadSetting, match="DARKROOM_DATA"):
        SqliteFile(tmp_path / "nowhere" / "ledger.db", clock=SettableClock())


def test_an_old_sqlite_is_refused(path, monkeypatch):
    """A SQLite without what the schema needs is named with the version wanted."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(BadSetting, match=r"needs 3\.37\.0 or newer"):
        SqliteFile(path, clock=SettableClock())


def test_a_full_disk_refuses_new_jobs(path):
    """Where the file can't grow, a submit is refused as a whole, and what is running goes on."""
    with closing(SqliteLedger(path, lease_s=30, retention_s=3600)) as ledger:
        key = make_key(ledger, granted_micro=10**9)
        connection = ledger._file._connection
        ledger.accept(ask(key))
        _, lease = ledger.claim("w1")
        ledger.progress(lease, PROGRESS)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull):
            [ledger.accept(ask(key)) for _ in range(1000)]
        (after,) = list(ledger.keys())
        assert after.held_micro == 1000 * sum(ledger.counts().values())
        assert ledger.progress(lease, PROGRESS) is False
        connection.execute(f"PRAGMA max_page_count = {pages + 100}")
        ledger.accept(ask(key))
