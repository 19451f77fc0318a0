"""A TLS connection that speaks just enough HTTP/1.1 for a benchmark: the client's share of two cores stays small."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import yaml


class Wire:
    """One connection; `ask` sends a request and reads the whole answer, `follow` begins one that never ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, kubeconfig: Path) -> Wire:
        config = yaml.safe_load(kubeconfig.read_text())
        user = config["users"][0]["user"]
        tls = ssl.create_default_context(cafile=str(kubeconfig.parent / "ca.crt"))
        tls.load_cert_chain(kubeconfig.parent / user["client-certificate"], kubeconfig.parent / user["client-key"])
        port = int(config["clusters"][0]["cluster"]["server"].rpartition(":")[2])
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=1 << 20))

    def _send(self, method: str, path: str, body: bytes, media: str) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        if body:
            head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)

    async def ask(
        self, method: str, path: str, body: bytes = b"", media: str = "application/json"
    ) -> tuple[int, bytes]:
        """(status, body)"""
        self._send(method, path, body, media)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await self._reader.readexactly(length)

    async def follow(self, path: str) -> None:
        self._send("GET", path, b"", "")
        await self._reader.readuntil(b"\r\n\r\n")

    async def line(self) -> bytes:
        """The next chunk's line, of a watch."""
        await self._reader.readuntil(b"\r\n")
        line = await self._reader.readuntil(b"\n")
        await self._reader.readexactly(2)
        return line

    def close(self) -> None:
        self._writer.close()
