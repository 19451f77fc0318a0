"""compute v1 by Google's own library, over REST: calls in threads, tried again, their operations waited for.

    CloudError    the service said no: `status` is HTTP's, `reason` its own word
    └── Doubt     nobody knows whether it was done: the answer was lost and asking again didn't help

What may be done twice is (reads; and writes, which carry a request id that the service knows again).
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import compute_v1
from google.protobuf import json_format
from requests.exceptions import RequestException

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.config import GcpConfig
from kubesvc.loadbalancer.provider import BadProvider
from kubesvc.loadbalancer.providers.gcp.plan import Step, Verb
from kubesvc.loadbalancer.providers.gcp.resources import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 16
LONG_POLL = 10.0  # seconds that one question after an operation lasts, at most
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_AGAIN_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "resourceNotReady"})
_OPERATION_STATUS = {  # an operation's error -> the status a call with that fate has
    "RESOURCE_ALREADY_EXISTS": 409,
    "RESOURCE_NOT_FOUND": 404,
    "CONDITION_NOT_MET": 412,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": 400,
}
_IN_USE = ("resourceInUseByAnotherResource", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE")


class CloudError(Exception):
    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{what}: {status} {reason}: {message}" if status else f"{what}: {message}")
        self.status, self.reason = status, reason

    @property
    def in_use(self) -> bool:
        return self.reason in _IN_USE


class Doubt(CloudError):
    pass


class _Collection(msgspec.Struct, frozen=True):
    """`argument` names the object in a request, `message` its type."""

    client: str
    argument: str
    message: str
    scope: str  # region | global | zone


_COLLECTIONS = {
    Kind.RULE: _Collection("ForwardingRulesClient", "forwarding_rule", "ForwardingRule", "region"),
    Kind.BACKEND_SERVICE: _Collection("RegionBackendServicesClient", "backend_service", "BackendService", "region"),
    Kind.HEALTH_CHECK: _Collection("RegionHealthChecksClient", "health_check", "HealthCheck", "region"),
    Kind.ADDRESS: _Collection("AddressesClient", "address", "Address", "region"),
    Kind.FIREWALL: _Collection("FirewallsClient", "firewall", "Firewall", "global"),
    Kind.GROUP: _Collection("InstanceGroupsClient", "instance_group", "InstanceGroup", "zone"),
}


class Compute:
    """The objects of one project and region. Raises BadProvider when there are no credentials."""

    def __init__(self, config: GcpConfig) -> None:
        self._config = config
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gcp")
        self._clients: dict[str, Any] = {}
        for name in ("GlobalOperationsClient", "RegionOperationsClient", "ZoneOperationsClient"):
            self._client(name)  # threads ask for these; and no credentials is said now

    async def list(self, kind: Kind, prefix: str = "") -> dict[str, JSON]:
        """name -> object, of those whose names begin with `prefix`; zonal ones of all zones, as ZONE/NAME."""
        collection = _COLLECTIONS[kind]
        request: dict[str, Any] = {"project": self._config.project}
        if prefix:
            request["filter"] = f'name eq "{prefix}.*"'
        client = self._client(collection.client)
        if collection.scope == "region":
            request["region"] = self._config.region
        zonal = collection.scope == "zone"
        method = client.aggregated_list if zonal else client.list

        def read() -> dict[str, JSON]:
            pages = method(request=request, retry=None, timeout=self._config.timeout)
            if not zonal:
                return {found.name: _json(found) for found in pages}
            return {
                f"{scope.removeprefix('zones/')}/{found.name}": _json(found)
                for scope, part in pages
                for found in part.instance_groups
            }

        return await self._tried(f"list {kind}", read)

    async def get(self, kind: Kind, name: str) -> JSON | None:
        collection = _COLLECTIONS[kind]
        client = self._client(collection.client)
        request = self._where(kind, name)
        try:
            return await self._tried(f"get {kind} {name}", lambda: _json(self._call(client.get, request)))
        except CloudError as error:
            if error.status == 404:
                return None
            raise

    async def members(self, group: str) -> frozenset[str]:
        """Names of the VMs in the group ZONE/NAME."""
        client = self._client("InstanceGroupsClient")
        request = self._where(Kind.GROUP, group)

        def read() -> frozenset[str]:
            pages = client.list_instances(request=request, retry=None, timeout=self._config.timeout)
            return frozenset(found.instance.rpartition("/")[2] for found in pages)

        return await self._tried(f"list instances of {group}", read)

    async def do(self, step: Step) -> None:
        """Returns when it is done."""
        collection = _COLLECTIONS[step.kind]
        method = getattr(self._client(collection.client), f"{step.verb}_unary")
        request = self._where(step.kind, step.name) | {"request_id": str(uuid.uuid4())}
        if step.verb is Verb.INSERT:
            del request[collection.argument]
        if step.verb in (Verb.ADD_INSTANCES, Verb.REMOVE_INSTANCES):
            zone = request["zone"]
            links = [
                {"instance": f"projects/{self._config.project}/zones/{zone}/instances/{name}"}
                for name in step.body["instances"]
            ]
            request[f"instance_groups_{step.verb}_request_resource"] = {"instances": links}
        elif step.verb is not Verb.DELETE:
            message = getattr(compute_v1, collection.message)
            request[f"{collection.argument}_resource"] = message.from_json(json.dumps(step.body))
        what = f"{step.verb} {step.kind} {step.name}"
        log.info("%s", what)
        await self._finish(what, await self._tried(what, lambda: self._call(method, request), writes=True))

    async def settle(self, prefix: str) -> None:
        """Wait for all operations that run on objects whose names begin with `prefix`: a lost call may be one."""
        client = self._client("GlobalOperationsClient")
        request = {"project": self._config.project, "filter": "status != DONE"}

        def read() -> list[Any]:
            pages = client.aggregated_list(request=request, retry=None, timeout=self._config.timeout)
            return [found for _, part in pages for found in part.operations]

        for operation in await self._tried("list operations", read):
            if f"/{prefix}" in operation.target_link:
                try:
                    await self._finish(f"operation {operation.name}", operation)
                except CloudError as error:
                    log.info("%s", error)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.transport.close()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, what: str, operation: Any) -> None:
        while operation.status != compute_v1.Operation.Status.DONE:
            operation = await self._tried(what, functools.partial(self._wait, operation))
        if operation.error.errors:
            first = operation.error.errors[0]
            status = operation.http_error_status_code or _OPERATION_STATUS.get(first.code, 500)
            raise CloudError(what, status, first.code, first.message)

    def _wait(self, operation: Any) -> Any:
        request = {"project": self._config.project, "operation": operation.name}
        client = "GlobalOperationsClient"
        for scope in ("zone", "region"):
            link = getattr(operation, scope)
            if link:
                request[scope] = link.rpartition("/")[2]
                client = f"{scope.capitalize()}OperationsClient"
        try:
            return self._client(client).wait(request=request, retry=None, timeout=LONG_POLL)
        except RequestException as error:
            if "timed out" in str(error):
                return operation  # it still runs
            raise

    async def _tried(self, what: str, call: Callable[[], T], *, writes: bool = False) -> T:
        lost = False
        for delay in self._delays():
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, call)
            except GoogleAPICallError as error:
                status, reason = int(error.code or 0), _reason(error)
                if delay is None or (status not in _AGAIN and reason not in _AGAIN_REASONS):
                    kind = Doubt if writes and (lost or status in _AGAIN) else CloudError
                    raise kind(what, status, reason, _message(error)) from error
                lost = lost or status >= 500
            except (RequestException, GoogleAuthError) as error:
                if delay is None:
                    message = f"no answer from {self._config.endpoint or 'Google Cloud'} ({type(error).__name__})"
                    raise (Doubt if writes else CloudError)(what, 0, "", message) from error
                lost = True
            log.debug("%s: again in %.1f s", what, delay)
            await asyncio.sleep(delay)
        raise AssertionError

    def _delays(self) -> Iterator[float | None]:
        """Between tries: twice as long each time, with jitter; None after the last."""
        for number in range(self._config.tries - 1):
            yield min(self._config.last_delay, self._config.first_delay * 2**number) * random.uniform(0.5, 1.0)
        yield None

    def _call(self, method: Callable[..., Any], request: Mapping[str, Any]) -> Any:
        return method(request=request, retry=None, timeout=self._config.timeout)

    def _where(self, kind: Kind, name: str) -> dict[str, Any]:
        collection = _COLLECTIONS[kind]
        request: dict[str, Any] = {"project": self._config.project}
        if collection.scope == "region":
            request["region"] = self._config.region
        elif collection.scope == "zone":
            request["zone"], _, name = name.partition("/")
        return request | {collection.argument: name}

    def _client(self, name: str) -> Any:
        client = self._clients.get(name)
        if client is None:
            endpoint = self._config.endpoint
            plain = endpoint.startswith("http://")  # a stand-in: nothing to be trusted with credentials
            try:
                client = getattr(compute_v1, name)(
                    transport="rest",
                    credentials=AnonymousCredentials() if plain else None,
                    client_options=ClientOptions(api_endpoint=endpoint) if endpoint else None,
                )
            except DefaultCredentialsError as error:
                raise BadProvider(
                    "provider gcp: no credentials of Google Cloud: run on a VM with a service account, or set "
                    "GOOGLE_APPLICATION_CREDENTIALS to a key's file; docs/guide/gcp.md has the role"
                ) from error
            self._clients[name] = client
        return client


def _json(message: Any) -> JSON:
    found: JSON = json_format.MessageToDict(type(message).pb(message))
    return found


def _reason(error: GoogleAPICallError) -> str:
    return next((str(e["reason"]) for e in error.errors or () if isinstance(e, dict) and e.get("reason")), "")


def _message(error: GoogleAPICallError) -> str:
    """Without the URL, whose request id would make every failure another one."""
    told = next((str(e["message"]) for e in error.errors or () if isinstance(e, dict) and e.get("message")), "")
    return told or str(error.message).partition("?")[0]
