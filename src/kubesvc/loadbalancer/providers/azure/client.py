"""Azure's network API by its SDK, as documents: a call in a thread, long operations waited for, errors told apart.

    ProviderFailed
    └── CloudError            it didn't work, or nobody knows whether it did
        ├── Stale             somebody else wrote in between: the ETag has changed
        ├── Busy              another operation on it is under way
        └── Rejected          Azure won't have this document

Throttling is waited out here, by all calls at once; nothing else is retried: what is called again must be decided
again, by the controller's queue. The SDK is imported with this module, so only once the provider is chosen.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.provider import BadProvider, ProviderFailed
from kubesvc.loadbalancer.providers.azure.config import AzureConfig, group_of, name_of

try:
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
    from azure.core.polling import LROPoller
    from azure.identity import DefaultAzureCredential
    from azure.mgmt.network import NetworkManagementClient, models
except ImportError as error:
    raise BadProvider(f"provider azure needs Azure's SDK ({error}): pip install 'kubesvc[azure]'") from error

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST = 600.0  # seconds for a long operation
PATIENCE = 60.0  # seconds of throttling that are waited out before the call is given up
NO_CREDENTIALS = (
    "there are no credentials for Azure: give this process a managed or workload identity, or AZURE_CLIENT_ID, "
    "AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or log in with az login"
)
BUSY = ("AnotherOperationInProgress", "Conflict", "RetryableError", "CanceledAndSupersededDueToAnotherOperation")


class CloudError(ProviderFailed):
    pass


class Stale(CloudError):
    pass


class Busy(CloudError):
    pass


class Rejected(CloudError):
    pass


class Client:
    """Documents are as on the wire, JSON; None is one that doesn't exist. All raise CloudError."""

    def __init__(self, config: AzureConfig, credential: object = None) -> None:
        logging.getLogger("azure").setLevel(logging.WARNING)  # it logs each request
        logging.getLogger("azure.identity").setLevel(logging.ERROR)  # and each credential that it didn't find
        self._config = config
        self._open_at = 0.0  # loop's clock: until then Azure doesn't want to hear from us
        verify = {} if config.ca_file is None else {"connection_verify": str(config.ca_file)}
        self._network: Any = NetworkManagementClient(
            credential or DefaultAzureCredential(),
            config.subscription,
            base_url=config.endpoint.rstrip("/"),
            credential_scopes=[config.endpoint.rstrip("/") + "/.default"],
            retry_total=0,
            connection_timeout=config.timeout,
            read_timeout=config.timeout,
            polling_interval=config.poll,
            **verify,
        )

    def close(self) -> None:
        self._network.close()

    async def get_balancer(self, name: str) -> JSON | None:
        group = self._config.resource_group
        return await self._read(lambda: self._network.load_balancers.get(group, name))

    async def put_balancer(self, name: str, document: JSON, etag: str) -> JSON:
        group, body = self._config.resource_group, models.LoadBalancer(document)
        return await self._write(
            lambda: self._network.load_balancers.begin_create_or_update(group, name, body, **_if(etag))
        )

    async def delete_balancer(self, name: str, etag: str) -> None:
        group = self._config.resource_group
        await self._delete(lambda: self._network.load_balancers.begin_delete(group, name, **_if(etag)))

    async def get_group(self) -> JSON | None:
        where = group_of(self._config.nsg_id), name_of(self._config.nsg_id)
        return await self._read(lambda: self._network.network_security_groups.get(*where))

    async def put_group(self, document: JSON, etag: str) -> JSON:
        where = group_of(self._config.nsg_id), name_of(self._config.nsg_id)
        body = models.NetworkSecurityGroup(document)
        return await self._write(
            lambda: self._network.network_security_groups.begin_create_or_update(*where, body, **_if(etag))
        )

    async def list_public_ips(self) -> list[JSON]:
        """Of the whole subscription: they may be in any resource group."""
        return await self._call(lambda: [ip.as_dict() for ip in self._network.public_ip_addresses.list_all()])

    async def put_public_ip(self, group: str, name: str, document: JSON, etag: str) -> JSON:
        body = models.PublicIPAddress(document)
        return await self._write(
            lambda: self._network.public_ip_addresses.begin_create_or_update(group, name, body, **_if(etag))
        )

    async def delete_public_ip(self, group: str, name: str) -> None:
        await self._delete(lambda: self._network.public_ip_addresses.begin_delete(group, name))

    # ── one call ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, get: Callable[[], Any]) -> JSON | None:
        try:
            return await self._call(lambda: dict(get().as_dict()))
        except _Missing:
            return None

    async def _write(self, begin: Callable[[], LROPoller[Any]]) -> JSON:
        return await self._call(lambda: dict(_waited(begin()).as_dict()))

    async def _delete(self, begin: Callable[[], LROPoller[Any]]) -> None:
        try:
            await self._call(lambda: _waited(begin()))
        except _Missing:
            return

    async def _call(self, work: Callable[[], T]) -> T:
        loop, waited = asyncio.get_running_loop(), 0.0
        while True:
            await asyncio.sleep(max(0.0, self._open_at - loop.time()))
            try:
                return await asyncio.to_thread(_told, work)
            except _Throttled as throttled:
                waited += throttled.after
                self._open_at = max(self._open_at, loop.time() + min(throttled.after, PATIENCE))
                if waited > PATIENCE:
                    raise
                log.warning("Azure throttles us: waiting %.0f s", throttled.after)


class _Missing(CloudError):
    pass


class _Throttled(CloudError):
    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


def _if(etag: str) -> dict[str, Any]:
    """What exists is replaced only as it was read; what doesn't is only created."""
    return {"headers": {"If-Match": etag} if etag else {"If-None-Match": "*"}}


def _waited(poller: LROPoller[Any]) -> Any:
    found = poller.result(LONGEST)
    if not poller.done():
        raise CloudError(f"Azure hasn't finished after {LONGEST:.0f} s; looking again later")
    return found


def _told(work: Callable[[], T]) -> T:
    with _translated():
        return work()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientAuthenticationError as error:
        raise (CloudError(NO_CREDENTIALS) if error.response is None else _meaning(error)) from error
    except HttpResponseError as error:
        raise _meaning(error) from error
    except AzureError as error:
        raise CloudError(f"Azure can't be asked: {_line(error)}") from error


def _meaning(error: HttpResponseError) -> CloudError:
    status, code = error.status_code or 0, str(getattr(error.error, "code", None) or "")
    message = f"Azure says {status or ''} {code}: {_line(error)}".replace("  ", " ")
    if status == 429:
        header = (error.response.headers.get("Retry-After") if error.response is not None else None) or "5"
        return _Throttled(message, float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else 5.0)
    if status == 404 and code != "ResourceGroupNotFound":
        return _Missing(message)
    if status == 412:
        return Stale(message)
    if code in BUSY:
        return Busy(message)
    ours = status == 401 or code == "AuthorizationFailed"  # whatever the document says
    return Rejected(message) if 400 <= status < 500 and not ours else CloudError(message)


def _line(error: Exception) -> str:
    """Its message on one line, short enough for an event."""
    text = getattr(getattr(error, "error", None), "message", None) or getattr(error, "message", "") or str(error)
    return " ".join(str(text).split())[:600]
