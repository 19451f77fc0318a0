"""What a kubeconfig says of its user is what the server hears."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from kubesvc.client import kubeconfig
from kubesvc.client.session import Unreachable
from kubesvc.client.transport import HttpTransport, Request


def written(path: Path, user: dict[str, str]) -> Path:
    tree = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
    }
    (path / "kubeconfig").write_text(yaml.safe_dump(tree))
    return path / "kubeconfig"


@pytest.mark.parametrize(
    ("user", "expected"),
    [({"token": "abc"}, ["Bearer abc", "Bearer abc"]), ({"tokenFile": "t"}, ["Bearer first", "Bearer second"])],
    ids=["a token", "a token's file, replaced meanwhile"],
)
async def test_a_token_goes_with_each_request(tmp_path: Path, user: dict[str, str], expected: list[str]) -> None:
    """Inline, or from a file that is read again each time, relative to the kubeconfig."""
    (tmp_path / "t").write_text("first\n")
    heard: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        heard.append(request.headers.get("authorization", ""))
        return web.json_response({})

    server = await asyncio.get_running_loop().create_server(web.Server(answer), "127.0.0.1", 0)
    session = kubeconfig.load(written(tmp_path, user))
    transport = session._transport
    assert isinstance(transport, HttpTransport)
    transport._server = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await transport.send(Request("GET", "/"))
    (tmp_path / "t").write_text("second\n")
    await transport.send(Request("GET", "/"))
    await session.close()
    server.close()
    assert heard == expected


async def test_a_missing_token_file_is_unreachable_not_a_crash(tmp_path: Path) -> None:
    """Whoever writes it may come later: the request fails as if nobody answered."""
    session = kubeconfig.load(written(tmp_path, {"tokenFile": "missing"}))
    with pytest.raises(Unreachable, match="missing"):
        await session.raw("GET", "/version")
    await session.close()
