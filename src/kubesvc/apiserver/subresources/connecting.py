"""What a CONNECT asks for, as admission webhooks are shown it: PodExecOptions and its like.

    exec, attach    stdin, stdout, stderr, tty, container, command
    portforward     ports
    proxy           path, which begins with a slash

Source: apiserver pkg/endpoints/handlers/rest.go, ConnectResource; pkg/apis/core/types.go.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from msgspec.structs import replace

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.routing import Target, is_true
from kubesvc.apiserver.served import served
from kubesvc.apiserver.state import State
from kubesvc.apiserver.webhooks import asking
from kubesvc.client.transport import Request

_PORT = re.compile(r"[0-9]{1,5}")
_BOOLEANS = ("stdin", "stdout", "stderr", "tty")


async def admitted(state: State, request: Request, target: Target) -> Request:
    """The request as webhooks leave it. Raises what they, or failing them, refuse with."""
    options = _options(pairs(request))
    if not await _changed(state, target, options):
        return request
    left = [(name, text) for name, value in options.items() for text in _texts(value)]
    return replace(request, query=dict(left), raw_query=urlencode(left))


async def admitted_path(state: State, target: Target, path: str) -> str:
    """The path to be asked for behind /proxy, quoted as it came, as webhooks leave it."""
    options: JSON = {"path": unquote(path)} if path else {}
    return quote(str(options.get("path") or "")) if await _changed(state, target, options) else path


def pairs(request: Request) -> list[tuple[str, str]]:
    """The parameters, of which some come several times."""
    return parse_qsl(request.raw_query, keep_blank_values=True) or list(request.query.items())


async def _changed(state: State, target: Target, options: JSON) -> bool:
    """Whether webhooks have changed `options`, which is done in place."""
    if not asking.concerns(state, target.kind):
        return False
    found = dict(served(target.kind))[target.subresource]
    subject = Kind(found.group, found.version, found.kind, "", "", True)
    before = dict(options)
    await asking.submitted(state, target, subject, options, operation="CONNECT")
    return options != before


def _options(given: list[tuple[str, str]]) -> JSON:
    """As their JSON has them: without what is false or empty."""
    words = dict(given)
    options: JSON = {name: True for name in _BOOLEANS if is_true(words, name)}
    if container := words.get("container"):
        options["container"] = container
    if command := [text for name, text in given if name == "command"]:
        options["command"] = command
    if ports := [int(text) for name, text in given if name == "ports" and _PORT.fullmatch(text)]:
        options["ports"] = ports
    return options


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
