"""Google Cloud's compute v1 on loopback: real clients speak to it over HTTP. Faults are dealt out at the door."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from support.gcp.cloud import Cloud, select
from support.gcp.model import FIELDS, Json, Problem

NO_ANSWER = "no answer"  # the connection ends, nothing was done
LOST = "lost"  # it was done, and the connection ends
HANG = "hang"  # it is done, and nothing comes
REFUSALS = {
    409: "conflict",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    503: "backendError",
}
Fault = int | str


class Faults:
    """`rate`: how many requests, and how many operations, meet one. `script`: faults for the next requests that fit."""

    def __init__(self, seed: int = 0) -> None:
        self.rate = 0.0
        self.script: list[tuple[str, str, Fault]] = []  # method, part of the path, what happens
        self.dealt: Counter[Fault] = Counter()
        self._dice = random.Random(seed)

    def strike(self) -> bool:
        return self._dice.random() < self.rate

    def next(self, method: str, path: str) -> Fault | None:
        fault: Fault | None = None
        for entry in self.script:
            if entry[0] == method and entry[1] in path:
                self.script.remove(entry)
                fault = entry[2]
                break
        else:
            if self.strike():
                fault = self._dice.choice([429, 500, 503, NO_ANSWER, LOST])
        if fault is not None:
            self.dealt[fault] += 1
        return fault


class Server:
    """`calls`: "METHOD collection" -> how often. `page`: objects a list answers with at once."""

    def __init__(self, cloud: Cloud, faults: Faults) -> None:
        self.cloud, self.faults = cloud, faults
        self.calls: Counter[str] = Counter()
        self.page = 500
        self.url = ""
        self.waited = asyncio.Event()
        """Somebody asked after an operation that wasn't done."""
        self._closing = asyncio.Event()
        cloud.spoil = faults.strike

    @property
    def mutations(self) -> int:
        return sum(n for call, n in self.calls.items() if not call.startswith("GET") and "operations" not in call)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        parts = path.split("/")
        collection = next((part for part in parts if part in FIELDS or part == "operations"), parts[-1])
        listing = " list" if parts[-1] == collection else " instances" if parts[-1] == "listInstances" else ""
        reads = request.method == "GET" or parts[-1] in ("listInstances", "wait")
        self.calls[f"{'GET' if reads else request.method} {collection}{listing}"] += 1
        fault = self.faults.next(request.method, path)
        if fault == NO_ANSWER:
            return self._cut(request)
        if isinstance(fault, int):
            return self._problem(Problem(fault, REFUSALS[fault], "injected"))
        try:
            answer = web.json_response(await self._answer(request, path))
        except Problem as problem:
            answer = self._problem(problem)
        if fault == LOST:
            return self._cut(request)
        if fault == HANG:
            await self._closing.wait()
        return answer

    async def _answer(self, request: web.Request, path: str) -> Json:
        if request.match_info["project"] != self.cloud.project:
            raise Problem(404, "notFound", f"The resource 'projects/{request.match_info['project']}' was not found")
        cloud, query = self.cloud, request.query
        if path.startswith("aggregated/"):
            return self._aggregated(path.removeprefix("aggregated/"), query.get("filter", ""))
        parts = path.split("/")
        collection_at = 1 if parts[0] == "global" else 2
        place, rest = "/".join(parts[: collection_at + 1]), parts[collection_at + 1 :]
        body = await request.json() if request.can_read_body else {}
        request_id = query.get("requestId", "")
        match request.method, rest:
            case "POST", [name, "wait"] if parts[collection_at] == "operations":
                if cloud.operations.get(name, {}).get("status") == "RUNNING":
                    self.waited.set()
                return await cloud.wait(name)
            case "GET", []:
                return self._paged(select(list(cloud.objects.get(place, {}).values()), query.get("filter", "")), query)
            case "GET", [name]:
                return cloud.get(place, name)
            case "POST", []:
                return cloud.insert(place, body, request_id)
            case "PATCH", [name]:
                return cloud.modify(place, name, body, request_id, whole=False)
            case "PUT", [name]:
                return cloud.modify(place, name, body, request_id, whole=True)
            case "DELETE", [name]:
                return cloud.delete(place, name, request_id)
            case "POST", [name, "listInstances"]:
                cloud.get(place, name)
                members = sorted(cloud.members.get(f"{place}/{name}", ()))
                return self._paged([{"instance": f"https://x/projects/{cloud.project}/{vm}"} for vm in members], query)
            case "POST", [name, ("addInstances" | "removeInstances") as action]:
                return cloud.enrol(place, name, action, body, request_id)
        raise Problem(404, "notFound", f"no such method: {request.method} {path}")

    def _paged(self, objects: list[Json], query: object) -> Json:
        start = int(getattr(query, "get")("pageToken", "0"))  # noqa: B009
        answer: Json = {"items": objects[start : start + self.page]}
        if start + self.page < len(objects):
            answer["nextPageToken"] = str(start + self.page)
        return answer

    def _aggregated(self, collection: str, expression: str) -> Json:
        if collection == "operations":
            return {"items": {"global": {"operations": select(list(self.cloud.operations.values()), expression)}}}
        items: Json = {f"regions/{self.cloud.region}": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
        for path, objects in self.cloud.objects.items():
            if path.endswith(f"/{collection}"):
                items[path.removesuffix(f"/{collection}")] = {collection: select(list(objects.values()), expression)}
        return {"items": items}

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _problem(self, problem: Problem) -> web.Response:
        error = {"message": str(problem), "domain": "global", "reason": problem.reason}
        return web.json_response(
            {"error": {"code": problem.status, "message": str(problem), "errors": [error]}}, status=problem.status
        )

    def close(self) -> None:
        self._closing.set()


@asynccontextmanager
async def gcp_server(*, seed: int = 0, latency: float = 0.0) -> AsyncIterator[Server]:
    """A cloud with project `shop` in europe-west1 and three VMs, node1 to node3, in zones b, c and d."""
    cloud = Cloud(latency=latency)
    for number, zone in enumerate("bcd", 1):
        cloud.vm(f"europe-west1-{zone}", f"node{number}")
    server = Server(cloud, Faults(seed))
    app = web.Application()
    app.router.add_route("*", "/compute/v1/projects/{project}/{path:.+}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.close()
        await cloud.close()
        await runner.cleanup()
