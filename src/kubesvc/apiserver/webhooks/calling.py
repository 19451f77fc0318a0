"""The call itself: HTTPS to a URL, or to a Service through a node's agent, as services/proxy does."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import AsyncIterator
from functools import lru_cache

import aiohttp

from kubesvc.api.errors import ApiError
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import proxy
from kubesvc.apiserver.webhooks.configuration import ClientConfig, Webhook
from kubesvc.client.transport import Request

_LARGEST = 4 << 20  # bytes of an answer
_HEADERS = {"content-type": "application/json", "accept": "application/json", "user-agent": "kubesvc-apiserver"}


class Unanswered(Exception):
    """Nobody answered, in time, with 200."""


class Caller:
    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    async def call(self, state: State, webhook: Webhook, body: bytes) -> bytes:
        """What the webhook answers. Raises Unanswered."""
        config = webhook.client_config
        try:
            async with asyncio.timeout(webhook.timeout_seconds):
                if config.service is not None:
                    return await _through_a_node(state, config, body)
                return await self._directly(config, body)
        except TimeoutError as error:
            raise Unanswered(f"no answer in {webhook.timeout_seconds} s: context deadline exceeded") from error
        except (OSError, aiohttp.ClientError, ApiError, ValueError) as error:
            raise Unanswered(str(error) or type(error).__name__) from error

    async def _directly(self, config: ClientConfig, body: bytes) -> bytes:
        if self._http is None:
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        trust = _trust(config.ca_bundle)
        async with self._http.post(config.url, data=body, headers=_HEADERS, ssl=trust, allow_redirects=False) as answer:
            if answer.status != 200:
                raise Unanswered(f"the server answered {answer.status}")
            return await _read(answer.content.iter_any())

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None


async def _through_a_node(state: State, config: ClientConfig, body: bytes) -> bytes:
    service = config.service
    assert service is not None

    async def content() -> AsyncIterator[bytes]:
        yield body

    target = Target(SERVICE, service.namespace, f"https:{service.name}:{service.port}", "proxy")
    path = f"{SERVICE.path(service.namespace, target.name, 'proxy')}/{service.path.lstrip('/')}"
    request = Request("POST", path, headers=_HEADERS, raw_path=path, content=content())
    answer = await proxy.connect(state, request, target)
    if answer.status != 200 or answer.stream is None:
        raise Unanswered(f"the service answered {answer.status}")
    return await _read(answer.stream)


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > _LARGEST:
            raise Unanswered(f"the answer is larger than {_LARGEST} bytes")
    return bytes(found)


@lru_cache(maxsize=64)
def _trust(bundle: str) -> ssl.SSLContext:
    """By caBundle alone, or by what this system trusts where there is none. Raises ValueError."""
    if not bundle:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=base64.b64decode(bundle).decode("ascii"))
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
        raise ValueError(f"caBundle can't be read: {error}") from error
