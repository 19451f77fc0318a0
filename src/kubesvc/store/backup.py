"""Copies of a store's file: a backup is taken while the store is in use, a restore while nobody has it.

A backup is one revision, the present alone: no history. A restored store goes on at revisions that neither it nor what
it replaced has ever used, so that whoever watched before is told to list again instead of missing what is different.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from kubesvc.store import database
from kubesvc.store.protocol import StoreError, Versioned

_BEYOND = 1_000_000
"""Revisions left out after a restore: more than were written since the backup, where that can't be read."""


def backup(source: Path, target: Path) -> int:
    """Copy what is in `source` now into `target`; returns how many objects and claims. Raises StoreError."""
    if not source.exists():
        raise StoreError(f"{source}: there is no store yet")
    if target.exists():
        raise StoreError(f"{target}: it is there already, and is left as it is; name another file")
    part = target.with_name(target.name + ".part")
    with database.explained(target):
        part.unlink(missing_ok=True)
        try:
            _vacuum(source, part)
            kept = _present_only(part)
            _sync(part)
            part.replace(target)
            _sync(target.parent)
        finally:
            part.unlink(missing_ok=True)
    return kept


def _vacuum(source: Path, part: Path) -> None:
    with database.explained(source):
        reading = database.reader(source)
        database.keep_private(part)  # an empty file is as good as none
        try:
            reading.execute("VACUUM INTO ?", (str(part),))
        finally:
            reading.close()


def _present_only(part: Path) -> int:
    """Drop history from the copy; returns the rows left."""
    copy = sqlite3.connect(part, isolation_level=None)
    try:
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        database.compact(copy, _newest(copy))
        copy.execute("VACUUM")
        (count,) = copy.execute("SELECT count(*) FROM log").fetchone()
        return int(count)
    finally:
        copy.close()


def restore(source: Path, target: Path) -> int:
    """Put `source`, a backup, in place of `target`; returns its objects and claims. Raises StoreError.

    What `target` was is kept beside it, as `.before-restore`. Refused while a process has `target` open.
    """
    if not source.is_file():
        raise StoreError(f"{source}: there is no such file")
    kept = _check(source)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = database.hold(target)
    part = target.with_name(target.name + ".part")
    try:
        with database.explained(target):
            beyond = max(_settle(target), _revision(source)) + _BEYOND
            part.unlink(missing_ok=True)
            _vacuum(source, part)
            _present_only(part)
            _start_at(part, beyond)
            _sync(part)
            _set_aside(target)
            part.replace(target)
            _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)
        os.close(lock)
    return kept


def _check(source: Path) -> int:
    """That `source` is whole; returns its rows. Raises StoreError."""
    with database.explained(source):
        reading = database.reader(source)
        try:
            (verdict,) = reading.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"{source}: it is damaged: {verdict}; use another backup")
            return len(database.state_at(reading, 1 << 62))
        finally:
            reading.close()


def _settle(target: Path) -> int:
    """Move the write-ahead log of `target` into it; returns its revision, 0 where it can't be read."""
    if not target.exists():
        return 0
    try:
        found = sqlite3.connect(target, isolation_level=None)
        try:
            found.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return _newest(found)
        finally:
            found.close()
    except sqlite3.Error:  # damaged: that is what restoring is for
        return 0


def _revision(path: Path) -> int:
    reading = database.reader(path)
    try:
        return _newest(reading)
    finally:
        reading.close()


def _newest(connection: sqlite3.Connection) -> int:
    (newest,) = connection.execute("SELECT max(id) FROM log").fetchone()
    return max(newest or 0, database.compacted(connection))


def _start_at(path: Path, revision: int) -> None:
    copy = sqlite3.connect(path, isolation_level=None)
    try:
        copy.execute("UPDATE state SET number = ? WHERE name = 'compacted'", (revision,))
    finally:
        copy.close()


def _set_aside(target: Path) -> None:
    """Keep the old file under another name. What is beside it must go: it belongs to that file's content."""
    aside = target.with_name(target.name + ".before-restore")
    if target.exists():
        aside.unlink(missing_ok=True)
        os.link(target, aside)
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def snapshot(path: Path) -> list[Versioned]:
    """Everything in a store's file at one moment, whether or not it is in use. Raises StoreError."""
    with database.explained(path):
        reading = database.reader(path)
        try:
            return list(database.state_at(reading, 1 << 62).values())
        finally:
            reading.close()
