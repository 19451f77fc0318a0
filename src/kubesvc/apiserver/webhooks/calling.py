"""The call itself: HTTPS to a URL, or to a ready endpoint of a Service under the Service's own name.

The server's certificate is checked in both forms, against caBundle alone or, where there is none, by what this system
trusts. That of a Service must be for NAME.NAMESPACE.svc, whichever address it is reached at.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from functools import lru_cache

import aiohttp
from yarl import URL

from kubesvc.api import names
from kubesvc.api.errors import ApiError
from kubesvc.apiserver.state import State
from kubesvc.apiserver.webhooks import resolving
from kubesvc.apiserver.webhooks.configuration import ClientConfig, Webhook

_LARGEST = 4 << 20  # bytes of an answer
_HEADERS = {"content-type": "application/json", "accept": "application/json", "user-agent": "kubesvc-apiserver"}


class Unanswered(Exception):
    """Nobody answered, in time, with 200."""


class Caller:
    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    async def call(self, state: State, webhook: Webhook, body: bytes) -> bytes:
        """What the webhook answers. Raises Unanswered, which says what to do where that is known."""
        config = webhook.client_config
        try:
            async with asyncio.timeout(webhook.timeout_seconds):
                return await self._post(state, config, URL(webhook.address), body)
        except TimeoutError as error:
            raise Unanswered(f"no answer in {webhook.timeout_seconds} s: context deadline exceeded") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unanswered(_untrusted(config, error.certificate_error)) from error
        except aiohttp.ClientConnectorError as error:
            raise Unanswered(_unreached(config, error)) from error
        except (OSError, aiohttp.ClientError, ApiError, ValueError) as error:
            raise Unanswered(str(error) or type(error).__name__) from error

    async def _post(self, state: State, config: ClientConfig, url: URL, body: bytes) -> bytes:
        if self._http is None:
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        headers, name = _HEADERS, None
        if config.service is not None:
            headers, name = {**_HEADERS, "host": url.authority}, url.host
            host, port = await resolving.endpoint(state, config.service)
            url = url.with_host(host).with_port(port)
        trust = _trust(config.ca_bundle, name)
        async with self._http.post(
            url, data=body, headers=headers, ssl=trust, server_hostname=name, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise Unanswered(f"the server answered {answer.status}")
            found = bytearray()
            async for piece in answer.content.iter_any():
                found += piece
                if len(found) > _LARGEST:
                    raise Unanswered(f"the answer is larger than {_LARGEST} bytes")
            return bytes(found)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None


def _unreached(config: ClientConfig, error: aiohttp.ClientConnectorError) -> str:
    why = f"{error.host}:{error.port} can't be reached: {error.os_error.strerror}"
    if config.url and names.is_loopback(error.host):
        return f"{why}; that is the API server's own loopback: name the webhook's machine as the API server reaches it"
    return why


def _untrusted(config: ClientConfig, error: Exception) -> str:
    why = getattr(error, "verify_message", "") or str(error)
    authority = "clientConfig.caBundle" if config.ca_bundle else "this system's authorities (caBundle is empty)"
    name = config.service.host if config.service is not None else URL(config.url).host
    return (
        f"tls: failed to verify certificate: {why}; it must be for {name} and signed by one of {authority}:"
        " put its authority's certificate there, or give the server another"
    )


@lru_cache(maxsize=64)
def _trust(bundle: str, name: str | None) -> ssl.SSLContext:
    """By caBundle alone, or by what this system trusts where there is none. Raises ValueError.

    One for each `name` that is checked: connections are kept by address and context, and one that was made under
    another Service's name must not be used.
    """
    if not bundle:
        context = ssl.create_default_context()
    else:
        try:
            context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode("ascii"))
        except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
            raise ValueError(f"caBundle can't be read: {error}; it must be certificates in PEM, in base64") from error
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # any certificate in it is believed, a server's own too
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # upstream doesn't ask for all of RFC 5280; Python from 3.13 would
    context.hostname_checks_common_name = False
    return context
