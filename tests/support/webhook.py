"""A real webhook for tests: HTTPS with a certificate of its own authority, answers as it is told."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from support.certificates import Authority

JSON = dict[str, Any]
Decide = Callable[[JSON], JSON | Awaitable[JSON]]


class Webhook:
    """`asked` are the requests of the reviews that came; `decide` makes each into the response, without its uid. Its
    certificate is for `host`, by default the `address` it listens at."""

    def __init__(self, directory: Path, host: str = "", address: str = "127.0.0.1") -> None:
        self.address = address
        self.asked: list[JSON] = []
        self.decide: Decide = lambda request: {"allowed": True}
        self.status = 200
        self.keeps = True  # connections, for the next question
        authority = Authority(directory, "webhook-ca")
        authority.serving("webhook", host or address)
        self.bundle = base64.b64encode(authority.path.read_bytes()).decode()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(directory / "webhook.crt", directory / "webhook.key")
        self.port = 0

    def client(self, path: str = "/") -> JSON:
        return {"url": f"https://{self.address}:{self.port}{path}", "caBundle": self.bundle}

    def entry(self, rules: list[JSON], path: str = "/", *, name: str = "a.example.com", **more: Any) -> JSON:
        """One of a configuration's webhooks."""
        entry = {"name": name, "clientConfig": self.client(path), "rules": rules, "sideEffects": "None"}
        return {**entry, "admissionReviewVersions": ["v1"], **more}

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        review = msgspec.json.decode(await request.read())
        asked = {**review["request"], "path": request.path, "query": request.query_string, "host": request.host}
        self.asked.append(asked)
        response = self.decide(asked)
        if asyncio.iscoroutine(response) or isinstance(response, asyncio.Future):
            response = await response
        body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                "response": {"uid": asked["uid"], **response}}  # type: ignore[dict-item]  # fmt: skip
        answer = web.Response(status=self.status, body=msgspec.json.encode(body), content_type="application/json")
        if not self.keeps:
            answer.force_close()
        return answer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Webhook]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.address, 0, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


def patch(*operations: JSON) -> JSON:
    """A response that allows and changes."""
    encoded = base64.b64encode(msgspec.json.encode(operations)).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}
