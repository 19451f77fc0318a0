"""The SQLite file beneath a store: its rows, who may have it open, and what its errors mean.

    log     a row a write, in the order they happened; `id` is the write's revision, `previous` the revision it replaced
    state   compacted: history before this revision is gone · format: of this file

A row is kept while it is the present, or while history still needs it as "what was before". So reading history and
compacting it are scans of a range of ids, and no index slows writing down. One process writes, held by a lock on a file
beside; any other may read a snapshot meanwhile (WAL), as `kubesvc backup` and `kubesvc doctor` do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubesvc.store.log import size_of
from kubesvc.store.protocol import MAX_BYTES, StoreError, StoreEvent, Unknown, Unwritable, Versioned

FORMAT = 2
WAL_PAGES = 4000  # of 4 KB: how much is written before it is moved into the file
VACUUM_PAGES = 4000  # given back to the file system at most, at a time
WAL_BYTES = 64 << 20  # the write-ahead log is cut back to this once it has grown beyond

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE log
    (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, previous INTEGER NOT NULL DEFAULT 0);
CREATE TABLE state (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('compacted', 0), ('format', {FORMAT});
COMMIT;
"""

_FULL = "the disk is full: free some space where this file is, and writes work again by themselves"
_RESTORE = "bring back a backup with `kubesvc restore FILE`"
# the start of SQLite's name for an error -> (whether nothing can have been written, what to do)
_REMEDIES = {
    "SQLITE_FULL": (True, _FULL),
    "SQLITE_IOERR_SHM": (True, _FULL),  # no room for the 32 KB beside the file that opening it takes
    "SQLITE_READONLY": (
        True,
        "it can't be written: look at the permissions of the file and its directory, and at how it is mounted",
    ),
    "SQLITE_CORRUPT": (True, f"the file is damaged: {_RESTORE}"),
    "SQLITE_NOTADB": (True, f"is it a kubesvc database? If it was, the file is damaged: {_RESTORE}"),
    "SQLITE_CANTOPEN": (True, "it can't be opened: look at the permissions of the file and its directory"),
    "SQLITE_BUSY": (True, "another process has it open: stop that one, or use another file"),
    "SQLITE_LOCKED": (True, "another process has it open: stop that one, or use another file"),
    "SQLITE_IOERR": (False, "the disk doesn't take it: `dmesg` may say why"),
}


def failure(path: Path, error: sqlite3.Error) -> StoreError:
    """`error` as a StoreError that names the file and the remedy: Unwritable where nothing was written."""
    name = getattr(error, "sqlite_errorname", "") or ""
    for start, (nothing_written, remedy) in _REMEDIES.items():
        if name.startswith(start):
            return (Unwritable if nothing_written else Unknown)(f"{path}: {error}; {remedy}")
    return Unknown(f"{path}: {error}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite or the system raise inside into StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise failure(path, error) from error
    except OSError as error:
        raise Unwritable(f"{path}: {error.strerror}; look at the permissions of its directory") from error


def hold(path: Path) -> int:
    """The lock of the one who writes to `path`: a descriptor to close. Raises StoreError when another has it."""
    with explained(path):
        descriptor = os.open(path.with_name(path.name + "-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unwritable(f"{path}: another process has it open: stop that one, or use another file") from None
    return descriptor


def keep_private(path: Path) -> None:
    """Make the file its owner's alone, for Secrets are in it; an empty one when it isn't there. Those that SQLite puts
    beside it take after it. What can't be done here is said by whoever opens it then."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes; the file is made when it isn't there. Raises StoreError."""
    keep_private(path)
    with explained(path):
        database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            made = database.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,)
            if made:
                _check_format(path, database)
            else:
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has to come before the first table
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            if not made:
                database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
    return database


def reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, beside whoever writes. Raises StoreError."""
    with explained(path):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        try:
            _check_format(path, database)
        except BaseException:
            database.close()
            raise
    return database


def _check_format(path: Path, database: sqlite3.Connection) -> None:
    try:
        (found,) = database.execute("SELECT number FROM state WHERE name = 'format'").fetchone() or (0,)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        raise StoreError(f"{path}: is it a kubesvc database? It has no log") from error
    if found != FORMAT:
        raise StoreError(
            f"{path}: it is of format {found}, this kubesvc reads format {FORMAT}: use the kubesvc that wrote it, or "
            "start anew with another file"
        )


_ROWS = (64, 8, 1)  # how many rows a statement inserts: few statements, each prepared once
_INSERT = {count: f"INSERT INTO log VALUES {', '.join(['(?, ?, ?, ?)'] * count)}" for count in _ROWS}


def insert(database: sqlite3.Connection, rows: list[tuple[int, str, bytes | None, int]]) -> None:
    """Add rows (revision, key, value, previous), many to a statement.

    Each statement lets go of the interpreter's lock and waits to have it back; a row each would be as many waits.
    """
    done = 0
    for count in _ROWS:
        while len(rows) - done >= count:
            values = [value for row in rows[done : done + count] for value in row]
            database.execute(_INSERT[count], values)
            done += count


def compacted(database: sqlite3.Connection) -> int:
    """The revision before which history is gone."""
    (found,) = database.execute("SELECT number FROM state WHERE name = 'compacted'").fetchone()
    return int(found)


def touch(database: sqlite3.Connection) -> None:
    """A write that changes nothing, through to the disk."""
    database.execute("UPDATE state SET number = number WHERE name = 'format'")


def look(path: Path) -> None:
    """Read the file as one who has read nothing of it yet, and see that there is room for the largest of commits (a
    small one may still fit into what the write-ahead log has). Raises StoreError."""
    with explained(path):
        disk = os.statvfs(path)
        if disk.f_bavail * disk.f_frsize < MAX_BYTES:
            raise Unwritable(f"{path}: {disk.f_bavail * disk.f_frsize >> 10} KB are left; {_FULL}")
        database = reader(path)
        try:
            database.execute("SELECT id, length(value) FROM log ORDER BY id DESC LIMIT 1").fetchone()
        finally:
            database.close()


def start_of_memory(database: sqlite3.Connection, history_bytes: int) -> int:
    """The oldest revision that history of this size reaches back to."""
    oldest, size = compacted(database), 0
    rows = database.execute("SELECT id, key, length(value) FROM log WHERE id > ? ORDER BY id DESC", (oldest,))
    for revision, key, length in rows:
        size += size_of(key, None) + (length or 0)
        if size > history_bytes:
            return int(revision)
    return oldest


def state_at(database: sqlite3.Connection, revision: int, prefix: str = "") -> dict[str, Versioned]:
    """key -> what was there at `revision`, which is not compacted."""
    state: dict[str, Versioned] = {}
    rows = database.execute(
        "SELECT id, key, value FROM log WHERE id <= ? AND key >= ? AND key < ? ORDER BY id",
        (revision, prefix, prefix + "\U0010ffff"),
    )
    for number, key, value in rows:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = Versioned(key, value, number)
    return state


def events(database: sqlite3.Connection, after: int, until: int, prefix: str = "", limit: int = -1) -> list[StoreEvent]:
    """The writes after revision `after` up to `until`, oldest first, with what each replaced."""
    rows = database.execute(
        "SELECT l.id, l.key, l.value, p.value, l.previous FROM log AS l LEFT JOIN log AS p ON p.id = l.previous "
        "WHERE l.id > ? AND l.id <= ? AND l.key >= ? AND l.key < ? ORDER BY l.id LIMIT ?",
        (after, until, prefix, prefix + "\U0010ffff", limit),
    )
    return [StoreEvent(*row) for row in rows]


def compact(database: sqlite3.Connection, until: int) -> None:
    """Forget all history up to revision `until`, and give the space back."""
    since = compacted(database)
    database.execute("BEGIN IMMEDIATE")
    span = (since, until)
    database.execute(
        "DELETE FROM log WHERE id IN (SELECT previous FROM log WHERE id > ? AND id <= ? AND previous > 0)", span
    )
    database.execute("DELETE FROM log WHERE id > ? AND id <= ? AND value IS NULL", span)
    database.execute("UPDATE state SET number = ? WHERE name = 'compacted'", (until,))
    database.execute("COMMIT")
    database.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()  # it takes a step a page
