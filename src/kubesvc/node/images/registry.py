"""A registry, over HTTP: manifests and blobs of one repository. Follows the OCI distribution spec and Docker's tokens.

GET /v2/ ─► 401, WWW-Authenticate: Bearer realm=…,service=… ─► GET realm?scope=repository:NAME:pull ─► a token
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from kubesvc.node.images import credentials
from kubesvc.node.images.credentials import Credentials
from kubesvc.node.images.image import ImageError, check_digest
from kubesvc.node.images.manifest import ACCEPTED, Descriptor
from kubesvc.node.images.reference import Reference

LARGEST = 8 << 20  # bytes of a manifest or a configuration; the spec asks for 4 MiB
BLOCK = 1 << 18
DENIED = "pull access denied, repository does not exist or may require authorization"


class Unavailable(ImageError):
    """Nobody answered, or the registry has trouble of its own: another try may do."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


@asynccontextmanager
async def opened(reference: Reference, known: Sequence[Credentials]) -> AsyncIterator[Registry]:
    """The registry of an image. `known` is tried in order. Raises ImageError."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True) as http:
        registry = Registry(http, reference)
        await registry.find(known)
        yield registry


class Registry:
    def __init__(self, http: aiohttp.ClientSession, reference: Reference) -> None:
        self._http, self._reference = http, reference
        self._base = ""
        self._headers: dict[str, str] = {}

    async def find(self, known: Sequence[Credentials]) -> None:
        """How the registry is spoken to: HTTPS, on this machine also HTTP, and as whom. Raises ImageError."""
        host = self._reference.host
        for scheme in ("https", "http") if self._reference.is_local else ("https",):
            self._base = f"{scheme}://{host}/v2"
            try:
                async with self._http.get(f"{self._base}/") as answer:
                    status, header = answer.status, answer.headers.get("www-authenticate", "")
                break
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                tls = isinstance(error, ssl.SSLError | aiohttp.ClientSSLError)
                if (
                    scheme == "http"
                    or not self._reference.is_local
                    or isinstance(error, aiohttp.ClientConnectorDNSError)
                ):
                    hint = " (plain HTTP is spoken with registries on this machine alone)" if tls else ""
                    raise self._unavailable(error, hint) from error
        if status == 401:
            await self._authenticate(header, known)

    async def _authenticate(self, header: str, known: Sequence[Credentials]) -> None:
        scheme, parameters = credentials.challenge(header)
        if scheme == "basic":
            if not known:
                raise ImageError(f"failed to authorize: {self._reference}: {DENIED}: no basic auth credentials")
            self._headers["authorization"] = known[0].basic
        elif scheme == "bearer" and "realm" in parameters:
            refused = ""
            for whose in (*known, None):
                answer = await self._token(parameters["realm"], parameters.get("service", ""), whose)
                if isinstance(answer, _Token):
                    self._headers["authorization"] = f"Bearer {answer.token or answer.access_token}"
                    return
                refused = refused or answer
            raise ImageError(f"failed to authorize: {self._reference}: {DENIED}: {refused}")
        else:
            raise ImageError(f"{self._reference.registry} asks for {header!r}: expected Bearer or Basic")

    async def _token(self, realm: str, service: str, whose: Credentials | None) -> _Token | str:
        """A token, or why there is none."""
        wanted = {"service": service, "scope": f"repository:{self._reference.repository}:pull"}
        try:
            if whose is not None and whose.identity_token:
                form = wanted | {
                    "grant_type": "refresh_token",
                    "refresh_token": whose.identity_token,
                    "client_id": "kubesvc",
                }
                request = self._http.post(realm, data=form)
            else:
                headers = {"authorization": whose.basic} if whose else {}
                request = self._http.get(realm, params=wanted, headers=headers)
            async with request as answer:
                body = await answer.read()
                if answer.status == 200:
                    return msgspec.json.decode(body, type=_Token)
                return f"token server: {answer.status} {_said(body)}".strip()
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise self._unavailable(error) from error

    async def manifest(self, which: str) -> tuple[bytes, str]:
        """A manifest by tag or digest, and its digest, which is checked. Raises ImageError."""
        body = await self._read(f"manifests/{which}", {"accept": ", ".join(ACCEPTED)})
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if which.startswith("sha256:") and digest != which:
            raise ImageError(f"manifest {which} came as {digest}: it was changed on the way")
        return body, digest

    async def small_blob(self, descriptor: Descriptor) -> bytes:
        """A blob in memory, checked. Raises ImageError."""
        body = await self._read(f"blobs/{check_digest(descriptor.digest)}", {})
        if (digest := f"sha256:{hashlib.sha256(body).hexdigest()}") != descriptor.digest:
            raise ImageError(f"blob {descriptor.digest} came as {digest}: it was changed on the way")
        return body

    async def blob(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """A blob as it comes, not checked. Raises ImageError."""
        async with self._get(f"blobs/{check_digest(descriptor.digest)}", {}) as answer:
            try:
                async for data in answer.content.iter_chunked(BLOCK):
                    yield data
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._unavailable(error) from error

    async def _read(self, path: str, headers: dict[str, str]) -> bytes:
        async with self._get(path, headers) as answer:
            body = bytearray()
            try:
                async for data in answer.content.iter_chunked(BLOCK):
                    body += data
                    if len(body) > LARGEST:
                        raise ImageError(f"{self._reference}: {path} is larger than {LARGEST >> 20} MiB")
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._unavailable(error) from error
            return bytes(body)

    @asynccontextmanager
    async def _get(self, path: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self._base}/{self._reference.repository}/{path}"
        try:
            answer = await self._http.get(url, headers=self._headers | headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unavailable(error) from error
        async with answer:
            if answer.status != 200:
                raise self._refusal(answer.status, _said(await answer.content.read(4096)))
            yield answer

    def _refusal(self, status: int, said: str) -> ImageError:
        whole = f'failed to resolve reference "{self._reference}"'
        if status == 404:
            return ImageError(f"{whole}: {self._reference}: not found")
        if status in (401, 403):
            return ImageError(f"{whole}: {DENIED}: {said or status}")
        if status == 429 or status >= 500:
            return Unavailable(f"{whole}: unexpected status from the registry: {status} {said}".strip())
        return ImageError(f"{whole}: unexpected status from the registry: {status} {said}".strip())

    def _unavailable(self, error: Exception, hint: str = "") -> Unavailable:
        why = str(error) or type(error).__name__
        return Unavailable(f'failed to resolve reference "{self._reference}": failed to do request: {why}{hint}')


def _said(body: bytes) -> str:
    try:
        return "; ".join(f"{e.code}: {e.message}" for e in msgspec.json.decode(body, type=_Errors).errors)
    except msgspec.DecodeError:
        return ""
