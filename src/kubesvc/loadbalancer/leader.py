"""Which of several controllers acts: who holds a Lease. Follows client-go's leaderelection, its times included.

    nobody's, or not renewed for its whole duration as seen *here* ─► take it ─► lead, renewing
    a renewal isn't through for the renew deadline ─► stop leading, and with it the process: another begins afresh

Clocks aren't compared: a holder is taken for dead when its record hasn't changed for that long while we looked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from kubesvc.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from kubesvc.api.meta import JSON, format_micro_time
from kubesvc.api.registry import LEASE
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """The Lease couldn't be renewed in time: somebody else may lead now."""


class LeaderConfig(msgspec.Struct, frozen=True):
    """Times are seconds."""

    identity: str
    name: str = "kubesvc-loadbalancer"
    namespace: str = "kube-system"
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0


async def lead(session: Session, config: LeaderConfig, work: Callable[[], Awaitable[None]]) -> None:
    """Wait until the Lease is ours, then do `work` for as long as it is. Gives it up when cancelled. Raises
    LeadershipLost."""
    election = _Election(session, config)
    await election.win()
    log.info("%s leads: it holds the Lease %s/%s", config.identity, config.namespace, config.name)
    working = asyncio.ensure_future(work())
    renewing = asyncio.ensure_future(election.keep())
    try:
        done, _ = await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (working, renewing):
            task.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)
        await election.release()


class _Election:
    def __init__(self, session: Session, config: LeaderConfig) -> None:
        self._session, self._config = session, config
        self._seen: tuple[str, str] = ("", "")  # holder and time of its last renewal
        self._seen_at = 0.0
        self._told = ""

    async def win(self) -> None:
        while True:
            if await self._try():
                return
            await asyncio.sleep(self._config.retry_period)

    async def keep(self) -> None:
        """Raises LeadershipLost."""
        config = self._config
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(config.retry_period)
            left = renewed + config.renew_deadline - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    if await self._try():
                        renewed = time.monotonic()
                        continue
            except TimeoutError:
                pass
            if time.monotonic() >= renewed + config.renew_deadline or self._seen[0] != config.identity:
                raise LeadershipLost(
                    f"the Lease {config.namespace}/{config.name} wasn't renewed for {config.renew_deadline:.0f} s"
                )

    async def release(self) -> None:
        """So that the next needn't wait."""
        try:
            async with asyncio.timeout(self._config.retry_period):
                lease = await self._session.get(LEASE, self._config.namespace, self._config.name)
                if lease["spec"].get("holderIdentity") == self._config.identity:
                    await self._write(lease, "")
        except (ApiError, Unreachable, TimeoutError):
            log.debug("the Lease wasn't given up")

    async def _try(self) -> bool:
        """Take or renew the Lease; whether it is ours now."""
        config = self._config
        try:
            lease = await self._session.get(LEASE, config.namespace, config.name)
        except NotFound:
            return await self._create()
        except (ApiError, Unreachable) as error:
            log.warning("the Lease %s/%s can't be read: %s", config.namespace, config.name, error)
            return False
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), time.monotonic()
        lasts = spec.get("leaseDurationSeconds") or config.lease_duration
        if holder not in ("", config.identity) and time.monotonic() < self._seen_at + lasts:
            if holder != self._told:
                log.info("%s leads: waiting", holder)
                self._told = holder
            return False
        try:
            await self._write(lease, config.identity)
        except (ApiError, Unreachable) as error:
            if not isinstance(error, Conflict):
                log.warning("the Lease %s/%s can't be written: %s", config.namespace, config.name, error)
            return False
        return True

    async def _create(self) -> bool:
        config = self._config
        meta = {"name": config.name, "namespace": config.namespace}
        spec = self._spec(config.identity) | {
            "acquireTime": format_micro_time(datetime.now(UTC)),
            "leaseTransitions": 0,
        }
        try:
            await self._session.create(LEASE, {"metadata": meta, "spec": spec})
        except AlreadyExists:
            return False
        except (ApiError, Unreachable) as error:
            log.warning("the Lease %s/%s can't be made: %s", config.namespace, config.name, error)
            return False
        return True

    async def _write(self, lease: JSON, holder: str) -> None:
        """A whole update: it is refused when somebody else was faster."""
        spec = (lease.get("spec") or {}) | self._spec(holder)
        if holder and (lease.get("spec") or {}).get("holderIdentity") != holder:
            spec["acquireTime"] = spec["renewTime"]
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        written = await self._session.update(LEASE, lease | {"spec": spec})
        self._seen = (holder, written["spec"].get("renewTime") or "")
        self._seen_at = time.monotonic()

    def _spec(self, holder: str) -> JSON:
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._config.lease_duration)) if holder else 1,
            "renewTime": format_micro_time(datetime.now(UTC)),
        }
