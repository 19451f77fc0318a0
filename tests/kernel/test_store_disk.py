"""The API over a disk that is full or read-only: clients get a Status that says so, and nothing is half there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc.api.errors import ServiceUnavailable
from kubesvc.api.meta import Object
from kubesvc.api.registry import CONFIG_MAP, SERVICE
from kubesvc.apiserver.doctor import examine
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request
from kubesvc.store.protocol import StoreError
from kubesvc.store.sqlite import SqliteStore
from support.admission import service
from support.apiserver import ADMIN, local_server, local_session


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> Path:
    """Use what is left of a file system; returns the file to delete."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


async def test_a_full_disk_refuses_writes_whole_and_takes_them_again_when_there_is_space(disk: Path) -> None:
    store = SqliteStore(disk / "objects.db")
    async with local_server(store) as server:
        session = Session(LocalTransport(server.handler, ADMIN))
        for n in range(5):
            await session.create(SERVICE, service(f"before-{n}", type="NodePort", ports=[{"port": 80}]))
        filler = fill(disk)
        refused: list[ServiceUnavailable] = []
        for n in range(40):
            name = f"during-{n}"
            try:
                await session.create(SERVICE, service(name, type="NodePort", ports=[{"port": 80}]))
            except ServiceUnavailable as error:
                refused.append(error)
        text = f"{disk}/objects.db: database or disk is full; the disk is full: free some space"
        assert refused
        assert all(text in str(error) for error in refused)
        assert all(error.retry_after is None for error in refused), "trying again at once is no use"
        assert len((await session.list(SERVICE, Object)).items) == 6 + 40 - len(refused)
        assert examine((await store.list("")).items) == []
        unready = await server.handler(Request("GET", "/readyz"))
        assert unready.status == 500
        said = f"[-]store failed: {disk}/objects.db: 0 KB are left; the disk is full: free some space"
        assert said in unready.body.decode()
        filler.unlink()
        await store.check()
        await session.create(SERVICE, service("after", ports=[{"port": 80}]))
    held = (await store.list("")).items
    await store.close()
    again = SqliteStore(disk / "objects.db")
    assert (await again.list("")).items == held
    await again.close()


async def test_a_store_on_a_full_disk_opens_and_is_read(disk: Path) -> None:
    store = SqliteStore(disk / "objects.db")
    async with local_session(store=store) as session:
        await session.create(CONFIG_MAP, {"metadata": {"name": "here", "namespace": "default"}})
    await store.close()
    filler = fill(disk)
    with pytest.raises(StoreError, match=r"objects\.db: .*the disk is full: free some space"):
        SqliteStore(disk / "objects.db")
    filler.unlink()
    again = SqliteStore(disk / "objects.db")
    assert await again.get("core/configmaps/default/here")
    await again.close()


async def test_a_read_only_file_system_is_named(disk: Path) -> None:
    await SqliteStore(disk / "objects.db").close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StoreError, match=r"objects\.db: Read-only file system; look at"):
        SqliteStore(disk / "objects.db")
