"""One pod on this node: from being bound, through its containers' lives, to its removal.

    bound ─► network, volumes, environment ─► containers as lifecycle.plan says ◄─┐
                                                 └── a change: publish, plan again ─┘
    told to go ─► no node picks it any more ─► preStop, SIGTERM, SIGKILL ─► take everything away ─► delete from the API

Everything runs in the pod's own task, except that what happens to a container is published from where it is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from kubesvc.api import registry
from kubesvc.api.errors import ApiError, Conflict, NotFound
from kubesvc.api.meta import JSON, Condition
from kubesvc.api.pods import Container, Pod
from kubesvc.client.session import Unreachable
from kubesvc.node import eviction, lifecycle, status
from kubesvc.node.bundles import Surroundings
from kubesvc.node.cni.network import CniError
from kubesvc.node.container import MIN_GRACE, ContainerRunner
from kubesvc.node.environment import ConfigError
from kubesvc.node.etc import HostnameTooLong
from kubesvc.node.hostports import HostPortRefused
from kubesvc.node.images.image import Image
from kubesvc.node.ipam import Exhausted
from kubesvc.node.machine import Machine
from kubesvc.node.publisher import Publisher
from kubesvc.node.records import PodRecord
from kubesvc.node.sandbox import Sandbox
from kubesvc.node.status import Failure

log = logging.getLogger(__name__)

AT_LEAST = 1.0  # seconds from SIGTERM to SIGKILL for a pod that is deleted by force or evicted, as upstream

Failures = (OSError, ApiError, Unreachable, ConfigError, HostnameTooLong, Exhausted, HostPortRefused, CniError)


class PodWorker:
    """The worker of one pod (by uid). `run` ends when nothing of the pod is left on this node."""

    def __init__(self, machine: Machine, pod: Pod, record: PodRecord | None = None) -> None:
        self.pod = pod
        self.uid = pod.metadata.uid
        self.paths = machine.paths.pod(self.uid)
        self._machine = machine
        self._wake = asyncio.Event()
        self._sandbox = Sandbox(machine, self.paths, self._wake.set, record)
        self._started_at = record.started_at if record else time.time()
        self._gone = False  # no longer in the API
        self._forced = asyncio.Event()  # whoever deletes it wants no waiting
        self._ended = False
        self._eviction = ""  # why it is to be evicted
        known = pod.status.reason in (status.DEADLINE, eviction.REASON)
        self._failure = Failure(pod.status.reason, pod.status.message) if known else None
        self.runners = {c.name: self._runner(c) for c in pod.spec.every_container}
        self._publisher = Publisher(machine.session, pod, self._status)
        self._finished = record is None and pod.status.phase in ("Succeeded", "Failed")
        self._stale = record is None and pod.status.phase == "Running"  # as the API has it: nothing of it is here

    def _runner(self, container: Container) -> ContainerRunner:
        return ContainerRunner(self._machine, self.pod, container, self.paths, self._changed)

    # ── what others tell it ──────────────────────────────────────────────────────────────────────────────────────────

    def update(self, pod: Pod) -> None:
        before, self.pod = self.pod, pod
        for container in pod.spec.ephemeral_containers:
            if container.name not in self.runners:
                self.runners[container.name] = self._runner(container)
        if before.spec != pod.spec:
            for container in pod.spec.every_container:
                self.runners[container.name].wanted(container, float(pod.spec.termination_grace_period_seconds))
        if self.going:
            self._hurry()
        if before.spec != pod.spec or before.metadata.deletion_timestamp != pod.metadata.deletion_timestamp:
            self._wake.set()
        if (before.metadata.labels, before.metadata.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            self._sandbox.outdated()  # they may be in a volume
        self._publisher.shown(pod)
        if before.status.conditions != pod.status.conditions and pod.spec.readiness_gates:
            self._publisher.changed()

    def remove(self) -> None:
        """The object is gone from the API: end what runs. While something did, only force could take it away."""
        self._gone = True
        self._forced.set()
        self._hurry()
        self._wake.set()

    def evict(self, message: str) -> None:
        """It uses more of the node than it may."""
        if self.begun:
            self._eviction = message
            self._wake.set()

    @property
    def begun(self) -> bool:
        """It is here, and neither over nor told to go."""
        return self._sandbox.record is not None and not (self._finished or self.going or self._eviction)

    def _hurry(self) -> None:
        """End within what the deletion says by now."""
        if self.pod.metadata.deletion_grace_period_seconds == 0:
            self._forced.set()
        for runner in self.runners.values():
            runner.hurry(self._grace())

    @property
    def going(self) -> bool:
        return self._gone or self.pod.metadata.deletion_timestamp is not None

    def _changed(self) -> None:
        self._publisher.changed()
        self._wake.set()

    # ── its life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        publisher = asyncio.get_running_loop().create_task(self._publisher.run())
        delay = 0.2
        try:
            await self._adopt()
            while not self.going:
                self._wake.clear()
                try:
                    wake = None if self._finished else await self._within_deadline()
                    delay = 0.2
                except Failures as error:
                    self._explain(error)
                    wake, delay = time.time() + delay, min(delay * 2, 10.0)
                await self._rest(wake)
            await self._terminate()
        finally:
            publisher.cancel()
            self._machine.followed.leave(self.pod)
            for runner in self.runners.values():
                runner.leave()

    async def _rest(self, until: float | None) -> None:
        try:
            async with asyncio.timeout(None if until is None else max(0.0, until - time.time())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _adopt(self) -> None:
        """Take over what an earlier agent left running; without a record, count from what the API remembers."""
        told = self.pod.status
        everyone = (*told.container_statuses, *told.init_container_statuses, *told.ephemeral_container_statuses)
        statuses = {s.name: s for s in everyone}
        record = self._sandbox.record
        if record is None:
            for name, runner in self.runners.items():
                known = statuses.get(name)
                if known is not None and known.container_id:
                    runner.count_from(known.restart_count + 1)
            if self._stale:
                self._publisher.changed()  # at once: its endpoints are still served
            return
        await self._sandbox.learn_features(self.pod)
        address = record.address or str(self._machine.config.node_ip)
        found = [await runner.adopt(address, statuses.get(name)) for name, runner in self.runners.items()]
        if any(found):
            log.info("pod %s/%s: adopted", *self.pod.key)
        self._finished = self.pod.status.phase in ("Succeeded", "Failed")
        if self._finished and self._failure is not None and self._failure.reason == eviction.REASON:
            await self._sandbox.make_room()  # the agent before may have been killed at it
        if any(found) and not self._finished:
            self._sandbox.follow(self.pod)
        self._changed()

    async def _within_deadline(self) -> float | None:
        """The next step, while there is time: the deadline counts from the pod's start on this node."""
        if self._eviction:
            await self._evict(self._eviction)
            return None
        seconds = self.pod.spec.active_deadline_seconds
        if seconds is None:
            return await self._step()
        deadline = self._started_at + seconds
        if time.time() >= deadline:
            await self._expire()
            return None
        wake = await self._step()
        return deadline if wake is None else min(wake, deadline)

    async def _expire(self) -> None:
        """The pod was active for longer than it may: its containers end, and it has failed."""
        self._machine.tell(self.pod, status.DEADLINE, status.TOO_LONG)
        await self._fail(Failure(status.DEADLINE, status.TOO_LONG), self._grace())

    async def _evict(self, message: str) -> None:
        """Its containers end soon, whatever grace they were promised, and what they wrote makes room."""
        self._machine.tell(self.pod, eviction.REASON, message, warning=True)
        await self._fail(Failure(eviction.REASON, message), AT_LEAST)
        for runner in self.runners.values():
            await runner.settled()
        await self._sandbox.make_room()

    async def _fail(self, why: Failure, grace: float) -> None:
        await self._end_containers(grace)
        self._failure, self._finished = why, True
        await self._sandbox.leave_network(self.pod)
        self._publisher.changed()

    async def _step(self) -> float | None:
        """Bring the pod nearer to what it should be; when to look again."""
        plan = lifecycle.plan(self.pod.spec, self._views(), time.time())
        for name, seconds in plan.backing_off.items():
            self._back_off(self.runners[name], seconds)
        if plan.finished:
            await self._end_containers(self._grace())
            self._finished = True
            await self._sandbox.leave_network(self.pod)
            self._publisher.changed()
        elif plan.start:
            await self._sandbox.prepare(self.pod)
            await asyncio.gather(*(self.runners[name].start(self.pod, self._for_container) for name in plan.start))
        if plan.finished:
            return plan.wake
        return min((w for w in (plan.wake, await self._sandbox.refresh(self.pod)) if w is not None), default=None)

    def _back_off(self, runner: ContainerRunner, seconds: float) -> None:
        view = runner.view
        if view.reason == "CrashLoopBackOff" and view.state is lifecycle.State.WAITING:
            return
        where = f"pod {self.pod.name}_{self.pod.namespace}({self.uid})"
        shown = f"{seconds / 60:g}m0s" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g}s"
        if seconds > 60 and seconds % 60:
            shown = f"{int(seconds // 60)}m{seconds % 60:g}s"
        message = f"back-off {shown} restarting failed container={view.name} pod={self.pod.name}_{self.pod.namespace}"
        runner.view = view.waiting("CrashLoopBackOff", f"{message}({self.uid})")
        text = f"Back-off restarting failed container {view.name} in {where}"
        self._machine.tell(self.pod, "BackOff", text, container=view.name, warning=True)
        self._publisher.changed()

    def _for_container(self, container: Container, image: Image) -> Surroundings:
        """Raises ConfigError, RuntimeFailure."""
        target = self.runners.get(container.target_container_name)
        return self._sandbox.around(self.pod, container, image, target.processes if target is not None else None)

    def _explain(self, error: Exception) -> None:
        """Why the pod can't begin yet, where people look: its events and its containers' states."""
        log.warning("pod %s/%s: %s; trying again", *self.pod.key, error)
        reason = "FailedMount" if isinstance(error, ConfigError) else "FailedCreatePodSandBox"
        self._machine.tell(self.pod, reason, str(error), warning=True)
        for runner in self.runners.values():
            if not runner.view.id:
                runner.view = runner.view.waiting("ContainerCreating", str(error))
        self._publisher.changed()

    # ── the status ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _views(self) -> dict[str, lifecycle.View]:
        return {name: runner.view for name, runner in self.runners.items()}

    def _status(self, standing: Sequence[Condition]) -> tuple[JSON, bool]:
        views = self._views()
        found = status.build(
            self.pod,
            views,
            time.time(),
            addresses=self._sandbox.addresses,
            host_ips=list(map(str, self._machine.config.node_ips)),
            started_at=self._started_at,
            all_read_only=self._machine.runtime.features.all_read_only,
            ended=self._ended,
            failure=self._failure,
            before=standing,
        )
        creating = all(not v.id and v.reason == "ContainerCreating" and not v.message for v in views.values())
        return found, creating and not self.going and not self._stale

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _grace(self) -> float:
        """Seconds the containers get: what the deletion said, by force `AT_LEAST`."""
        if self._forced.is_set():
            return AT_LEAST
        given = self.pod.metadata.deletion_grace_period_seconds
        return max(AT_LEAST, float(self.pod.spec.termination_grace_period_seconds if given is None else given))

    async def _terminate(self) -> None:
        self._hurry()
        for runner in self.runners.values():
            runner.quiet()
        begun = time.monotonic()
        if not self._forced.is_set() and any(not runner.ended.is_set() for runner in self.runners.values()):
            await self._machine.withdrawal.wait(self.pod, self._forced)
        await self._end_containers(max(AT_LEAST, self._grace() - (time.monotonic() - begun)))
        self._ended = True
        held = self.pod.metadata.finalizers and not self._finished  # whoever holds it asks how it ended
        if not self._gone and (self._sandbox.record is not None or held):
            self._publisher.changed()
            try:
                async with asyncio.timeout(5.0):
                    await self._publisher.settled()
            except TimeoutError:
                log.warning("pod %s/%s: its last status could not be written", *self.pod.key)
        for runner in self.runners.values():
            await runner.settled()
        await self._sandbox.remove(self.pod)
        await self._delete_object()

    async def _end_containers(self, grace: float) -> None:
        """All but the sidecars, then those, the last one first, within `grace` seconds."""
        sidecars = [c.name for c in self.pod.spec.init_containers if lifecycle.is_sidecar(c)]
        for runner in self.runners.values():
            runner.quiet()
        begun = time.monotonic()
        await asyncio.gather(*(self._stop(name, grace) for name in self.runners if name not in sidecars))
        for name in reversed(sidecars):
            given = min(grace, self._grace())
            await self._stop(name, max(min(given, MIN_GRACE), given - (time.monotonic() - begun)))

    async def _stop(self, name: str, grace: float) -> None:
        grace = min(grace, self._grace())  # it may have been shortened meanwhile
        await self.runners[name].stop(grace, f"Stopping container {name}")

    async def _delete_object(self) -> None:
        delay = 0.05
        while not self._gone:
            try:
                await self._machine.session.delete(
                    registry.POD, self.pod.namespace, self.pod.name, uid=self.uid, grace_seconds=0
                )
                return
            except (NotFound, Conflict):
                return  # deleted already, or another pod has the name by now
            except (ApiError, Unreachable) as error:
                log.warning("pod %s/%s: can't be deleted yet: %s", *self.pod.key, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
