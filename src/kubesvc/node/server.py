"""What the API server asks a node for, over HTTPS on the node's address.

    GET /containerLogs/NAMESPACE/POD/CONTAINER?follow&tailLines&sinceSeconds&sinceTime&timestamps&previous&limitBytes
    GET /exec/NAMESPACE/POD/CONTAINER?command=…&stdin=1&stdout=1&stderr=1&tty=1        (see clients.py)
    GET /attach/NAMESPACE/POD/CONTAINER?stdin=1&stdout=1&stderr=1&tty=1                (see attach.py)
    GET /portForward/NAMESPACE/POD                                                     (see portforward.py)
    any /proxy/SCHEME/ADDRESS/PORT/…                                                   (see proxying.py)
    GET /healthz

Whoever asks needs a client certificate of the cluster's CA (401 without) of the group system:masters (403).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from aiohttp import web

from kubesvc.api.errors import ApiError, BadRequest, Forbidden, NotFound, Unauthorized
from kubesvc.api.meta import parse_time
from kubesvc.client.pemfiles import keep_fresh
from kubesvc.kernel import netns
from kubesvc.node import attach, exec, logs, portchannels, portforward, proxying
from kubesvc.node.agent import Agent
from kubesvc.node.clients import Client, Wanted
from kubesvc.node.clients import serve as serve_client
from kubesvc.node.config import NodeConfig
from kubesvc.node.container import ContainerRunner
from kubesvc.node.pod import PodWorker

log = logging.getLogger(__name__)

ALLOWED = "system:masters"


def tls_context(config: NodeConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.certificate, config.key)
    context.load_verify_locations(config.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL  # so that a caller without one is told, by 401
    return context


def authorize(certificate: dict[str, object] | None) -> None:
    """Raises Unauthorized or Forbidden. `certificate` is what ssl's getpeercert gives: verified, or None."""
    if not certificate:
        raise Unauthorized("Unauthorized")
    subject = certificate.get("subject", ())
    assert isinstance(subject, tuple)
    groups = [value for part in subject for name, value in part if name == "organizationName"]
    if ALLOWED not in groups:
        raise Forbidden(f"the client certificate is not of group {ALLOWED}")


class NodeServer:
    def __init__(self, config: NodeConfig, agent: Agent) -> None:
        self._config = config
        self._agent = agent
        self._proxying = proxying.Proxying()

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the address is taken."""
        app = web.Application(middlewares=[_guard])
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for method in ("GET", "POST"):
            app.router.add_route(method, "/exec/{namespace}/{pod}/{container}", self._exec)
            app.router.add_route(method, "/attach/{namespace}/{pod}/{container}", self._attach)
            app.router.add_route(method, "/portForward/{namespace}/{pod}", self._port_forward)
        app.router.add_route("*", proxying.PATH, self._proxying.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await runner.setup()
        try:
            address = str(self._config.node_ip)
            tls = tls_context(self._config)
            site = web.TCPSite(runner, address, self._config.port, ssl_context=tls, reuse_address=True)
            await site.start()
            await keep_fresh(tls, self._config.certificate, self._config.key)
        finally:
            await runner.cleanup()
            await self._proxying.close()

    def _pod(self, request: web.Request) -> PodWorker:
        """Raises NotFound."""
        worker = self._agent.find(request.match_info["namespace"], request.match_info["pod"])
        if worker is None:
            raise NotFound(f'pods "{request.match_info["pod"]}" not found')
        return worker

    def _find(self, request: web.Request) -> tuple[PodWorker, ContainerRunner]:
        """Raises NotFound."""
        worker, name = self._pod(request), request.match_info["container"]
        runner = worker.runners.get(name)
        if runner is None:
            raise NotFound(f"container {name} is not valid for pod {worker.pod.name}")
        return worker, runner

    def _running(self, request: web.Request) -> tuple[PodWorker, ContainerRunner]:
        """Raises NotFound, BadRequest for a container that doesn't run."""
        worker, runner = self._find(request)
        if not runner.view.running:
            raise BadRequest(f'unable to upgrade connection: container not found ("{runner.container.name}")')
        return worker, runner

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, runner = self._find(request)
        options = log_options(request.query, datetime.now(UTC))
        attempt, ended = runner.view.attempt, runner.ended
        if _flag(request.query.get("previous", "")):
            attempt, ended = attempt - 1, asyncio.Event()
            ended.set()
        path = worker.paths.log(runner.container.name, attempt)
        if not logs.is_there(path):
            which = "previous terminated container" if attempt < runner.view.attempt else "container"
            raise BadRequest(f'{which} "{runner.container.name}" in pod "{worker.pod.name}" not found')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for piece in logs.read(path, options, ended):
            await response.write(piece)
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        command = request.query.getall("command", [])
        if not command:
            raise BadRequest("you must specify at least 1 command")
        _, runner = self._running(request)
        wanted = _wanted(request)

        async def work(client: Client) -> bytes:
            return await exec.serve(client, self._agent.runtime, runner.view.id, command, wanted)

        return await serve_client(request, wanted, work)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, runner = self._running(request)
        wanted = _wanted(request)
        bundle = worker.paths.bundle(runner.container.name, runner.view.attempt)

        async def work(client: Client) -> bytes:
            return await attach.serve(client, bundle, wanted)

        return await serve_client(request, wanted, work)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._pod(request)
        namespace = None if worker.pod.spec.host_network else worker.paths.netns
        if namespace is not None and not netns.is_namespace(namespace):
            raise BadRequest(f"unable to forward port because pod {worker.pod.name} is not running")
        name = f"{worker.pod.name}_{worker.pod.namespace}"
        inside = portforward.Inside(namespace, name, worker.uid)
        if portchannels.wanted(request):
            return await portchannels.serve(request, inside)
        return await portforward.serve(request, inside)


def _wanted(request: web.Request) -> Wanted:
    """Raises BadRequest when nothing is."""
    names = ("stdin", "stdout", "stderr", "tty")
    wanted = Wanted(*(_flag(request.query.get(name, "")) for name in names))
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    return wanted


def _flag(text: str) -> bool:
    return text in ("1", "true", "True", "TRUE", "t", "T")


def log_options(query: object, now: datetime) -> logs.Options:
    """The log options of a request. Raises BadRequest for a number that isn't one."""
    get: Callable[[str, str], str] = query.get  # type: ignore[attr-defined]

    def number(name: str) -> int | None:
        text = get(name, "")
        if not text:
            return None
        if not text.isdigit():
            raise BadRequest(f"{name}: {text!r} is not a number")
        return int(text)

    since = None
    if (seconds := number("sinceSeconds")) is not None:
        since = now - timedelta(seconds=seconds)
    elif text := get("sinceTime", ""):
        try:
            since = parse_time(text)
        except ValueError as error:
            raise BadRequest(f"sinceTime: {text!r} is not an RFC 3339 time") from error
    stream = get("stream", "").lower()
    return logs.Options(
        follow=_flag(get("follow", "")),
        tail=number("tailLines"),
        since=since,
        timestamps=_flag(get("timestamps", "")),
        limit=number("limitBytes"),
        stream=stream if stream in ("stdout", "stderr") else "",
    )


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Who asks, and every refusal as a Status."""
    try:
        tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        authorize(tls.getpeercert() if tls is not None else None)
        return await handler(request)
    except ApiError as error:
        return web.json_response(error.to_status(), status=error.code)
