"""Images made in a test, and a real registry (Debian's docker-registry) on loopback to keep them."""

from __future__ import annotations

import base64
import ctypes
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from kubesvc.kernel import netns
from support.box import eventually
from support.ports import free_port

BUSYBOX = "/bin/busybox"  # Debian's busybox-static, or any that needs no library
APPLETS = ("cat", "echo", "hostname", "httpd", "id", "kill", "ls", "pwd", "sh", "sleep", "test", "touch", "wget")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

Entry = bytes | str | None  # a file's contents, a link's target (after ->), a directory


def layer(entries: Mapping[str, Entry], *, members: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """An uncompressed layer. A text that begins with `->` is a symbolic link's target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(content, str) and content.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(info)
            else:
                data = content.encode() if isinstance(content, str) else content
                info.size, info.mode = len(data), 0o755 if name.startswith("bin/") else 0o644
                tar.addfile(info, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return out.getvalue()


def busybox() -> bytes:
    """A layer with a shell, /etc/passwd and a web root."""
    entries: dict[str, Entry] = {"bin/": None, "bin/busybox": Path(BUSYBOX).read_bytes(), "tmp/": None, "etc/": None}
    entries |= {f"bin/{name}": "->busybox" for name in APPLETS}
    entries["etc/passwd"] = "root:x:0:0:root:/root:/bin/sh\nweb:x:1234:4321:web:/srv:/bin/sh\n"
    entries["etc/group"] = "root:x:0:\nweb:x:4321:\nlogs:x:777:web\n"
    return layer(entries)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Built:
    """An image: its configuration, and its layers as they travel."""

    def __init__(self, layers: Sequence[bytes], packed: Sequence[bytes] | None = None, **config: Any) -> None:
        self.plain = list(layers)
        self.packed = list(packed) if packed is not None else [gzip.compress(one, 1, mtime=0) for one in layers]
        tree = {
            "architecture": config.pop("architecture", "amd64"),
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in self.plain]},
        }
        self.config = json.dumps(tree).encode()

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def blobs(self) -> dict[str, bytes]:
        return {digest(blob): blob for blob in (self.config, *self.packed)}

    @property
    def manifest(self) -> bytes:
        def descriptor(kind: str, blob: bytes) -> dict[str, Any]:
            return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}

        layers = []
        for blob in self.packed:
            packing = "+gzip" if blob.startswith(b"\x1f\x8b") else "+zstd" if blob.startswith(b"\x28\xb5") else ""
            layers.append(descriptor(f"application/vnd.oci.image.layer.v1.tar{packing}", blob))
        config = descriptor("application/vnd.oci.image.config.v1+json", self.config)
        whole = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        return json.dumps(whole).encode()

    def docker_archive(self, *names: str) -> bytes:
        """As `docker save` writes it."""
        files = {f"{self.id[7:]}.json": self.config}
        files |= {f"{index}/layer.tar": blob for index, blob in enumerate(self.packed)}
        members = [f"{index}/layer.tar" for index in range(len(self.packed))]
        saved = [{"Config": f"{self.id[7:]}.json", "RepoTags": list(names), "Layers": members}]
        return layer(files | {"manifest.json": json.dumps(saved)})

    def oci_archive(self, name: str = "", **changed: bytes) -> bytes:
        """An OCI layout; `changed` maps a digest -> other bytes in its place."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        entry = {"mediaType": MANIFEST, "digest": digest(self.manifest), "size": len(self.manifest)} | annotations
        files = {f"blobs/{key.replace(':', '/')}": changed.get(key, blob) for key, blob in self.blobs.items()}
        files[f"blobs/{digest(self.manifest).replace(':', '/')}"] = self.manifest
        index = {"schemaVersion": 2, "manifests": [entry]}
        return layer(files | {"oci-layout": '{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index)})


class Registry:
    """A registry that runs. `host` is 127.0.0.1:PORT."""

    def __init__(self, host: str, login: tuple[str, str] | None) -> None:
        self.host, self._login = host, login
        self._network = netns.current()  # a test may have gone to another by the time it pushes

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        request = urllib.request.Request(url, method=method, data=body or None)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if self._login:
            request.add_header("authorization", "Basic " + base64.b64encode(":".join(self._login).encode()).decode())
        with netns.entered(self._network):
            return urllib.request.urlopen(request, timeout=60)

    def close(self) -> None:
        os.close(self._network)

    def push_blob(self, repository: str, blob: bytes) -> None:
        where = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"").headers["location"]
        joined = f"{where}{'&' if '?' in where else '?'}digest={digest(blob)}"
        self.request("PUT", joined, blob, content_type="application/octet-stream")

    def push(self, image: Built, name: str) -> str:
        """Push under REPOSITORY:TAG; the name to pull it by."""
        repository, _, tag = name.partition(":")
        for blob in image.blobs.values():
            self.push_blob(repository, blob)
        self.push_manifest(image.manifest, repository, tag, MANIFEST)
        return f"{self.host}/{name}"

    def push_manifest(self, manifest: bytes, repository: str, tag: str, kind: str) -> None:
        self.request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, content_type=kind)


@contextmanager
def registry(directory: Path, login: tuple[str, str] | None = None) -> Iterator[Registry]:
    """Debian's docker-registry on a free port, with a name and a password if `login` says so."""
    port = free_port()
    data = Path(tempfile.mkdtemp(prefix="registry", dir=directory))
    auth = ""
    if login:
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
        crypt.restype = ctypes.c_char_p
        hashed = crypt(login[1].encode(), b"$2y$04$" + b"abcdefghijklmnopqrstuu").decode()  # bcrypt is all it takes
        (data / "htpasswd").write_text(f"{login[0]}:{hashed}\n")
        auth = f"auth: {{htpasswd: {{realm: test, path: {data / 'htpasswd'}}}}}\n"
    config = data / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {data / 'store'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    process = subprocess.Popen(
        [shutil.which("docker-registry") or "docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.setpgrp(),
    )
    try:
        found = Registry(f"127.0.0.1:{port}", login)
        eventually(lambda: found.request("GET", "/v2/").status == 200, what="the registry answers")
        yield found
        found.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(data, ignore_errors=True)


@asynccontextmanager
async def token_registry(inner: Registry, login: tuple[str, str]) -> AsyncIterator[str]:
    """What is in `inner`, to be had with a token; and the server that gives one for `login`. Yields HOST:PORT."""
    basic = "Basic " + base64.b64encode(":".join(login).encode()).decode()

    async def token(request: web.Request) -> web.Response:
        if request.headers.get("authorization") != basic:
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}, status=401)
        return web.json_response({"token": f"{request.query['service']} {request.query['scope']}"})

    async def pass_on(request: web.Request) -> web.Response:
        repository = request.path.removeprefix("/v2/").split("/manifests/")[0].split("/blobs/")[0]
        given = request.headers.get("authorization")
        if given is None or (repository and given != f"Bearer test repository:{repository}:pull"):
            challenge = f'Bearer realm="http://{request.host}/token",service="test"'
            return web.Response(status=401, headers={"www-authenticate": challenge})
        async with aiohttp.ClientSession() as http:
            headers = {"accept": request.headers.get("accept", "*/*")}
            async with http.get(f"http://{inner.host}{request.path}", headers=headers) as answer:
                return web.Response(body=await answer.read(), status=answer.status)

    app = web.Application()
    app.router.add_get("/token", token)
    app.router.add_get("/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def opened_layers(store: Path) -> list[str]:
    """The names of the layers in a store, for tests that count them."""
    return sorted(path.name for path in (store / "layers").iterdir() if re.fullmatch("[0-9a-f]{64}", path.name))
