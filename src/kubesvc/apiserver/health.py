"""/livez, /readyz, /healthz and /version: the only paths open to everybody.

/readyz?verbose says each check, /readyz/store is one of them alone, /readyz?exclude=store leaves it out. Whether the
store takes writes is tried; /livez doesn't ask, for another process would find the same disk.
"""

from __future__ import annotations

import platform

from kubesvc import __version__
from kubesvc.api.meta import JSON
from kubesvc.apiserver import encode
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Request, Response

_HEALTH = ("livez", "readyz", "healthz")

VERSION: JSON = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": f"v1.36.0+kubesvc-{__version__}",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": f"python{platform.python_version()}",
    "platform": "linux/amd64" if platform.machine() == "x86_64" else f"linux/{platform.machine()}",
}


def is_open(path: str) -> bool:
    """Whether everybody may ask for it."""
    return path in ("/version", "/version/") or path.strip("/").partition("/")[0] in _HEALTH


async def answer(state: State, request: Request) -> Response:
    if request.path.startswith("/version"):
        return encode.tree(VERSION)
    name, _, one = request.path.strip("/").partition("/")
    checks = await _checks(state, name)
    if one:
        if one not in checks:
            return Response(404, b"404 page not found\n", content_type="text/plain")
        return _text(checks[one] == "ok", "ok" if checks[one] == "ok" else f"internal server error: {checks[one]}\n")
    excluded = request.query.get("exclude", "")
    healthy = all(found == "ok" for check, found in checks.items() if check != excluded)
    if healthy and "verbose" not in request.query:
        return _text(True, "ok")
    lines = [_line(check, found, check == excluded) for check, found in checks.items()]
    return _text(healthy, "\n".join([*lines, f"{name} check {'passed' if healthy else 'failed'}", ""]))


async def _checks(state: State, name: str) -> dict[str, str]:
    """Check -> ok, or why it failed."""
    checks = {"ping": "ok", "store": "ok" if name == "livez" else await state.tried.found()}
    ready = state.ready or name == "livez"
    checks["bootstrap"] = "ok" if ready else "failed: the objects every cluster has are not there yet"
    return checks


def _line(check: str, found: str, excluded: bool) -> str:
    if excluded:
        return f"[+]{check} excluded: ok"
    return f"[{'+' if found == 'ok' else '-'}]{check} {found}"


def _text(healthy: bool, text: str) -> Response:
    headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
    return Response(200 if healthy else 500, text.encode(), headers, "text/plain")
