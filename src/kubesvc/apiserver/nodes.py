"""Calling the agent of a node: HTTPS with the server's own client certificate, to the node's internal address.

kubectl ──TLS──► API server ──TLS──► node:10250 /containerLogs/…, /exec/…, /portForward/…, /proxy/…
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterable

import aiohttp
import msgspec
from yarl import URL

from kubesvc.api.errors import ApiError, BadRequest, InternalError, from_status
from kubesvc.api.nodes import Node
from kubesvc.apiserver.config import ApiConfig
from kubesvc.client.kubeconfig import tls_context
from kubesvc.client.pemfiles import Followed
from kubesvc.client.transport import Response, Upgrade
from kubesvc.client.tunnel import Duplex, Head, Wire, ask, join

log = logging.getLogger(__name__)

_PORT = 10250
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0  # for an upgrade to be agreed to
_LARGEST_REFUSAL = 1 << 20  # bytes
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Nodes:
    """Connections to nodes' agents, trusted by the cluster's CA. Certificates are read on first use."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self._http: aiohttp.ClientSession | None = None
        self._trust: ssl.SSLContext | None = None
        self._files = Followed((config.node_client_cert, config.node_client_key))

    def _tls(self) -> ssl.SSLContext:
        if self._trust is not None and self._files.changed():
            try:
                self._trust.load_cert_chain(self._config.node_client_cert, self._config.node_client_key)
            except (OSError, ssl.SSLError) as error:
                log.warning("%s can't be used: %s; the one before is kept", self._config.node_client_cert, error)
        if self._trust is None:
            self._trust = tls_context(
                self._config.client_ca.read_bytes(),
                self._config.node_client_cert.read_bytes(),
                self._config.node_client_key.read_bytes(),
            )
        return self._trust

    def _session(self) -> aiohttp.ClientSession:
        self._tls()  # may be renewed: for new connections
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls(), limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                auto_decompress=False,  # what is proxied goes on as it came
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    async def get(self, node: Node, path: str) -> aiohttp.ClientResponse:
        """A 200 answer whose body is still to be read. Raises the node's own ApiError, or InternalError."""
        answer = await self.forward(node, "GET", path, ())
        if answer.status >= 400:
            async with answer:
                raise refusal(answer.status, await answer.read())
        return answer

    async def forward(
        self,
        node: Node,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        content: AsyncIterator[bytes] | None = None,
    ) -> aiohttp.ClientResponse:
        """Whatever the node answers, its body still to be read. Raises InternalError when it doesn't."""
        try:
            return await self._session().request(
                method,
                URL(base_url(node) + path, encoded=True),
                headers=list(headers),
                data=content,
                allow_redirects=False,
                skip_auto_headers=_AUTOMATIC,
            )
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(node, error) from error

    async def upgrade(self, node: Node, method: str, path: str, headers: Iterable[tuple[str, str]]) -> Response:
        """The node's answer to a request for an upgrade: the way on, or its refusal. Raises InternalError."""
        url = URL(base_url(node))
        assert url.host is not None
        assert url.port is not None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                head, wire = await ask(
                    url.host, url.port, self._tls(), method, path, [("Host", url.authority), *headers]
                )
        except (OSError, TimeoutError) as error:
            raise _unreachable(node, error) from error
        length = head.headers.get("content-length", "")
        if head.status >= 400 and length.isdigit() and int(length) <= _LARGEST_REFUSAL:
            return await _refused(head, wire, int(length))

        async def run(client: Duplex) -> None:
            await join(client, wire)

        return Response(head.status, upgrade=Upgrade(head.final(), run, wire.close))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None


async def _refused(head: Head, wire: Wire, length: int) -> Response:
    body = b""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            while len(body) < length and (piece := await wire.read()):
                body += piece
    except TimeoutError:
        pass
    finally:
        wire.close()
    return Response(head.status, body, content_type=head.headers.get("content-type", "text/plain"))


def base_url(node: Node) -> str:
    """https://ADDRESS:PORT of the agent. Raises BadRequest for a node that hasn't said where it is."""
    if not node.internal_ips:
        raise BadRequest(f"no preferred addresses found; node {node.name} has no InternalIP")
    address = node.internal_ips[0]
    port = node.status.daemon_endpoints.kubelet_endpoint.port or _PORT
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _unreachable(node: Node, error: Exception) -> InternalError:
    return InternalError(f"Internal error occurred: error dialing backend: node {node.name}: {error}")


def refusal(status: int, body: bytes) -> ApiError:
    """What the agent answered: a Status, or plain text."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = {"message": body.decode(errors="replace").strip()}
    return from_status(found if isinstance(found, dict) else {}, status)
