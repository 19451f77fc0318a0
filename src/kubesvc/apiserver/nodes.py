"""Calling the agent of a node: HTTPS with the server's own client certificate, to the node's internal address.

kubectl ──TLS──► API server ──TLS──► node:10250 /containerLogs/…, /exec/…
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import aiohttp
import msgspec

from kubesvc.api.core import Node
from kubesvc.api.errors import ApiError, BadRequest, InternalError, from_status
from kubesvc.apiserver.config import ApiConfig
from kubesvc.client.kubeconfig import tls_context

_PORT = 10250
_CONNECT_SECONDS = 5.0


class Nodes:
    """Connections to nodes' agents, trusted by the cluster's CA. Certificates are read on first use."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self._http: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            tls = tls_context(
                self._config.client_ca.read_bytes(),
                self._config.node_client_cert.read_bytes(),
                self._config.node_client_key.read_bytes(),
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=0), timeout=timeout)
        return self._http

    async def get(self, node: Node, path: str) -> aiohttp.ClientResponse:
        """A 200 answer whose body is still to be read. Raises the node's own ApiError, or InternalError."""
        try:
            answer = await self._session().get(base_url(node) + path)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(node, error) from error
        if answer.status >= 400:
            async with answer:
                raise _refusal(answer.status, await answer.read())
        return answer

    async def reach(self, node: Node) -> None:
        """Raises InternalError when the agent doesn't answer at all."""
        try:
            async with self._session().get(base_url(node) + "/healthz"):
                return
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(node, error) from error

    async def websocket(
        self, node: Node, path: str, protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse[Literal[True]]:
        """An open WebSocket with one of `protocols`. Raises ApiError."""
        try:
            return await self._session().ws_connect(base_url(node) + path, protocols=protocols, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, error.message.encode()) from error
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(node, error) from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None


def base_url(node: Node) -> str:
    """https://ADDRESS:PORT of the agent. Raises BadRequest for a node that hasn't said where it is."""
    if not node.internal_ips:
        raise BadRequest(f"no preferred addresses found; node {node.name} has no InternalIP")
    address = node.internal_ips[0]
    port = node.status.daemon_endpoints.kubelet_endpoint.port or _PORT
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _unreachable(node: Node, error: Exception) -> InternalError:
    return InternalError(f"Internal error occurred: error dialing backend: node {node.name}: {error}")


def _refusal(status: int, body: bytes) -> ApiError:
    """What the agent answered: a Status, or plain text."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = {"message": body.decode(errors="replace").strip()}
    return from_status(found if isinstance(found, dict) else {}, status)
