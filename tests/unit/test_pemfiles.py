"""Certificates in files that others replace."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from kubesvc.client.pemfiles import keep_fresh
from support.certificates import Authority


async def test_what_was_renewed_before_anybody_followed_is_presented(tmp_path: Path) -> None:
    """Between the reading of the first pair and the first look at the files."""
    authority = Authority(tmp_path)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    authority.serving("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    authority.serving("server", "127.0.0.1")
    task = asyncio.create_task(keep_fresh(context, certificate, key))
    await asyncio.sleep(0)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = server.sockets[0].getsockname()
    presented = await asyncio.to_thread(ssl.get_server_certificate, address, timeout=60)
    assert presented.strip() in certificate.read_text()
    server.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
