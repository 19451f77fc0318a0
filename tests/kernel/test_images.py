"""Images: what is unpacked, from what, and what is refused; against a real registry and archives made here."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesvc.kernel import mounts
from kubesvc.node.images import archive, credentials, reference, root
from kubesvc.node.images.credentials import Credentials
from kubesvc.node.images.image import Image, ImageError
from kubesvc.node.images.pull import pull
from kubesvc.node.images.store import Store
from support.images import (
    INDEX,
    MANIFEST,
    Built,
    Registry,
    digest,
    layer,
    opened_layers,
    registry,
    token_registry,
    zstd,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "images")
    made.make()
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


async def load(store: Store, data: bytes, tag: str = "") -> Image:
    (found,) = await archive.load(store, io.BytesIO(data), tag)
    return found


def files(path: Path) -> dict[str, str]:
    return {str(p.relative_to(path)): p.read_text() for p in sorted(path.rglob("*")) if p.is_file()}


class Mounted:
    """An image's root, mounted where a container would have it."""

    def __init__(self, store: Store, image: Image, bundle: Path) -> None:
        self._bundle = bundle
        self.root = bundle / "rootfs"
        self.root.mkdir(parents=True)
        root.mount(store, image, bundle)

    def __enter__(self) -> Path:
        return self.root

    def __exit__(self, *_: object) -> None:
        mounts.unmount_all(self._bundle)


LOWER = layer(
    {"etc/": None, "etc/kept": "kept", "etc/gone": "gone", "old/": None, "old/a": "a", "was/": None, "was/x": "x"}
)
UPPER = layer({
    "etc/.wh.gone": "", "etc/new": "new", "old/.wh..wh..opq": "", "old/b": "b",
    ".wh.was": "", "was/": None, "was/y": "y",
})  # fmt: skip
HOW = {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1"], "User": "7:8", "WorkingDir": "/w", "StopSignal": "SIGQUIT"}
TWO = Built([LOWER, UPPER], **HOW)
SEEN = {"etc/kept": "kept", "etc/new": "new", "old/b": "b", "was/y": "y"}


@pytest.mark.parametrize("packing", [gzip.compress, zstd, bytes], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("kind", ["docker", "oci"])
@pytest.mark.parametrize("outer", [bytes, gzip.compress, zstd], ids=["tar", "tar.gz", "tar.zst"])
async def test_an_archive_becomes_a_root_with_whiteouts_heeded(store, tmp_path, packing, kind, outer) -> None:
    """Docker's and OCI's, their layers and themselves compressed either way, come to the same files."""
    built = Built([LOWER, UPPER], [packing(LOWER), packing(UPPER)], Cmd=["x"])
    data = built.docker_archive("shop/web:1") if kind == "docker" else built.oci_archive("shop/web:1")
    image = await load(store, outer(data))
    assert (image.id, image.names) == (built.id, ("docker.io/shop/web:1",))
    with Mounted(store, image, tmp_path / "bundle") as seen:
        assert files(seen) == SEEN
        (seen / "etc/kept").write_text("written")
    with Mounted(store, image, tmp_path / "another") as seen:
        assert files(seen) == SEEN
    assert list((store.directory / "staging").iterdir()) == []


async def test_what_the_image_says_of_its_start_is_kept(store) -> None:
    image = await load(store, TWO.docker_archive("two:1"))
    assert (image.entrypoint, image.command, image.environment) == (("/e",), ("c",), ("A=1",))
    assert (image.user, image.working_dir, image.stop_signal) == ("7:8", "/w", "SIGQUIT")


async def test_owners_modes_links_and_capabilities_survive(store, tmp_path) -> None:
    program = tarfile.TarInfo("ping")
    program.mode, program.uid, program.gid, program.mtime = 0o4755, 12, 34, 1_000_000_000
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    program.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    hard = tarfile.TarInfo("pong")
    hard.type, hard.linkname = tarfile.LNKTYPE, "ping"
    device = tarfile.TarInfo("disk")
    device.type, device.devmajor, device.devminor = tarfile.BLKTYPE, 8, 0
    image = await load(store, Built([layer({}, members=[program, hard, device])]).docker_archive("p:1"))
    where = store.layer(image.layers[0])
    found = (where / "ping").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o4755, 12, 34, 1_000_000_000)
    assert os.getxattr(where / "ping", "security.capability") == capability
    assert (where / "pong").stat().st_ino == found.st_ino
    assert not (where / "disk").exists()


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [tarfile.TarInfo("../escaped")],
        [tarfile.TarInfo("/../../escaped")],
        [_link("a", "../../../../../../../../escaped", tarfile.LNKTYPE)],
    ],
    ids=["relative", "absolute", "hard link"],
)
async def test_an_entry_outside_of_the_root_is_refused(store, tmp_path, members) -> None:
    (tmp_path / "escaped").write_text("mine")
    with pytest.raises(ImageError, match="outside of its root"):
        await load(store, Built([layer({}, members=members)]).docker_archive("evil:1"))
    assert opened_layers(store.directory) == []


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../../../../../{outside}"])
async def test_a_link_in_a_layer_leads_nowhere_but_into_it(store, tmp_path, target) -> None:
    """What is written through a link out of the root ends inside it: the unpacker has no other root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = _link("way", target.format(outside=outside))
    inner = str(outside).lstrip("/") + "/"
    image = await load(store, Built([layer({inner: None}), layer({}, members=[link])]).docker_archive("a:1"))
    evil = layer({inner: None}, members=[link, tarfile.TarInfo("way/written")])
    image = await load(store, Built([evil]).docker_archive("b:1"))
    assert list(outside.iterdir()) == []
    assert (store.layer(image.layers[0]) / inner / "written").exists()


async def test_overlays_own_attributes_are_not_an_archives_to_set(store) -> None:
    info = tarfile.TarInfo("d")
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    image = await load(store, Built([layer({}, members=[info])]).docker_archive("x:1"))
    assert [n for n in os.listxattr(store.layer(image.layers[0]) / "d") if "overlay" in n] == []


@pytest.mark.parametrize("what", ["layer", "config", "contents"])
async def test_a_changed_blob_is_refused(store, what) -> None:
    other = layer({"f": "other"})
    if what == "contents":  # the blob is what the manifest says, and not what the configuration says
        built = Built([LOWER], [gzip.compress(other)])
        data = built.oci_archive("x:1")
    else:
        built = Built([LOWER])
        blob = {"layer": built.packed[0], "config": built.config}[what]
        swapped = {"layer": gzip.compress(other), "config": b"{}"}[what]
        data = built.oci_archive("x:1", **{digest(blob): swapped})
    with pytest.raises(ImageError, match="changed"):
        await load(store, data)
    assert store.list() == []
    assert opened_layers(store.directory) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an archive of images"),
        (b"no tar at all" * 100, "not an archive of images"),
        (layer({"a": "b"}), "expected manifest.json .docker save. or index.json"),
        (
            layer({"manifest.json": '[{"Config": "c.json", "Layers": []}]'}),
            "the archive has no c.json",
        ),
        (layer({"manifest.json": "{"}), "manifest.json of the archive can't be read"),
        (Built([LOWER]).oci_archive(), "give it with `--tag NAME`"),
    ],
    ids=["empty", "garbage", "foreign", "incomplete", "broken json", "nameless"],
)
async def test_what_is_no_archive_says_so(store, data, says) -> None:
    with pytest.raises(ImageError, match=says):
        await load(store, data)


async def test_a_full_disk_is_said_with_what_to_do(tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount_tmpfs(small, size="1m")
    try:
        store = Store(small)
        store.make()
        big = layer({"big": os.urandom(600_000)})
        with pytest.raises(ImageError, match=r"no space left on device: \d+ MiB are free in .*; make room, or remove"):
            await load(store, Built([big], [big]).docker_archive("big:1"))
        assert list((small / "staging").iterdir()) == []
    finally:
        mounts.unmount_all(small)


# ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_pulled_image_is_the_one_pushed(store, served, tmp_path) -> None:
    name = served.push(Built([LOWER, UPPER], [gzip.compress(LOWER), zstd(UPPER)]), "shop/web:1")
    image = await pull(store, reference.parse(name), ())
    assert image.names == (name,)
    with Mounted(store, image, tmp_path / "bundle") as seen:
        assert files(seen) == SEEN


async def test_layers_are_fetched_once_and_shared(store, served) -> None:
    first, second = Built([LOWER, layer({"one": "1"})]), Built([LOWER, layer({"two": "2"})])
    said: list[str] = []
    await pull(store, reference.parse(served.push(first, "a:1")), (), said.append)
    await pull(store, reference.parse(served.push(second, "b:1")), (), said.append)
    assert len(said) == 3
    assert len(opened_layers(store.directory)) == 3
    image = store.find(reference.parse(f"{served.host}/a:1"))
    assert store.remove(image, f"{served.host}/a:1", set)
    assert len(opened_layers(store.directory)) == 2


async def test_a_tag_that_moved_is_followed_and_a_digest_never_moves(store, served) -> None:
    first, second = Built([LOWER]), Built([UPPER])
    name = served.push(first, "moving:1")
    before = await pull(store, reference.parse(name), ())
    served.push(second, "moving:1")
    after = await pull(store, reference.parse(name), ())
    assert (before.id, after.id) == (first.id, second.id)
    assert store.find(reference.parse(name)).id == second.id
    pinned = f"{served.host}/moving@{digest(first.manifest)}"
    assert (await pull(store, reference.parse(pinned), ())).id == first.id
    assert store.find(reference.parse(pinned)).id == first.id


async def test_of_an_index_the_machines_own_is_taken(store, served) -> None:
    ours, other = Built([LOWER]), Built([UPPER], architecture="riscv64")
    entries = []
    for image, architecture in ((other, "riscv64"), (ours, "amd64")):
        served.push(image, f"many:{architecture}")
        platform = {"os": "linux", "architecture": architecture}
        entry = {"mediaType": MANIFEST, "digest": digest(image.manifest), "size": len(image.manifest)}
        entries.append(entry | {"platform": platform})
    for tag, chosen in (("all", entries), ("foreign", entries[:1])):
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": chosen}
        served.push_manifest(json.dumps(index).encode(), "many", tag, INDEX)
    assert (await pull(store, reference.parse(f"{served.host}/many:all"), ())).id == ours.id
    with pytest.raises(ImageError, match="expected linux/amd64, there are linux/riscv64"):
        await pull(store, reference.parse(f"{served.host}/many:foreign"), ())


async def test_an_image_that_is_not_there_is_named(store, served) -> None:
    with pytest.raises(ImageError, match=f"{served.host}/nothing:1: not found"):
        await pull(store, reference.parse(f"{served.host}/nothing:1"), ())


async def test_a_registry_that_is_not_there_is_named(store) -> None:
    with pytest.raises(ImageError, match="failed to do request"):
        await pull(store, reference.parse("127.0.0.1:1/nothing:1"), ())


async def test_credentials_open_a_private_registry(store, tmp_path) -> None:
    with registry(tmp_path, ("shop", "s3cret")) as private:
        wanted = reference.parse(private.push(Built([LOWER]), "web:1"))
        with pytest.raises(ImageError, match="pull access denied"):
            await pull(store, wanted, ())
        with pytest.raises(ImageError, match="pull access denied"):
            await pull(store, wanted, [Credentials("shop", "wrong")])
        auth = base64.b64encode(b"shop:s3cret").decode()
        keyring = credentials.decode(json.dumps({"auths": {f"http://{private.host}": {"auth": auth}}}), "config.json")
        assert (await pull(store, wanted, credentials.matching(keyring, wanted))).names == (f"{private.host}/web:1",)


async def test_a_token_is_fetched_with_ones_credentials(store, served) -> None:
    served.push(TWO, "tokens/web:1")
    async with token_registry(served, ("shop", "s3cret")) as host:
        wanted = reference.parse(f"{host}/tokens/web:1")
        with pytest.raises(ImageError, match="pull access denied.*401 UNAUTHORIZED: who are you"):
            await pull(store, wanted, ())
        assert (await pull(store, wanted, [Credentials("x", "y"), Credentials("shop", "s3cret")])).id == TWO.id


async def test_an_image_in_use_is_not_removed(store) -> None:
    image = await load(store, TWO.docker_archive("two:1", "two:2"))
    assert not store.remove(image, "docker.io/library/two:1", lambda: {image.id})
    (left,) = store.list()
    with pytest.raises(ImageError, match="is in use by a container"):
        store.remove(left, "docker.io/library/two:2", lambda: {image.id})
    assert store.remove(left, "docker.io/library/two:2", set)
    assert (store.list(), opened_layers(store.directory)) == ([], [])
