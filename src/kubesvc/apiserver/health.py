"""/livez, /readyz, /healthz and /version: the only paths open to everybody."""

from __future__ import annotations

import platform

from kubesvc import __version__
from kubesvc.api.meta import JSON
from kubesvc.apiserver import encode
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response
from kubesvc.store.protocol import StoreError

OPEN = frozenset(("/livez", "/readyz", "/healthz", "/version", "/version/"))

VERSION: JSON = {
    "major": "1",
    "minor": "36",
    "gitVersion": f"v1.36.0+kubesvc-{__version__}",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": f"python{platform.python_version()}",
    "platform": "linux/amd64" if platform.machine() == "x86_64" else f"linux/{platform.machine()}",
}


async def answer(state: State, request: Request) -> Response:
    if request.path.startswith("/version"):
        return encode.tree(VERSION)
    checks = {"ping": "ok", "store": "ok"}
    try:
        await state.store.revision()
    except StoreError as error:
        checks["store"] = f"failed: {error}"
    if request.path == "/readyz" and not state.ready:
        checks["bootstrap"] = "failed: the objects every cluster has are not there yet"
    healthy = all(found == "ok" for found in checks.values())
    text = "ok" if healthy else "failed"
    if "verbose" in request.query or not healthy:
        lines = [f"[{'+' if found == 'ok' else '-'}]{name} {found}" for name, found in checks.items()]
        text = "\n".join([*lines, f"{request.path.strip('/')} check {'passed' if healthy else 'failed'}", ""])
    return Response(200 if healthy else 503, text.encode(), content_type="text/plain")
