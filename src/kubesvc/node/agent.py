"""The pods bound to this node, each with its worker; and those that an earlier agent left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from kubesvc.api.pods import Pod
from kubesvc.client.informer import Informer
from kubesvc.kernel.nft.transaction import NftError
from kubesvc.node import records
from kubesvc.node.config import Address
from kubesvc.node.machine import Machine
from kubesvc.node.pod import PodWorker
from kubesvc.node.runtime import Runtime
from kubesvc.node.sandbox import pod_ips

log = logging.getLogger(__name__)


class Agent:
    """Gives each pod of the informer a worker, and tells it of changes. Begins when the informer has synced."""

    def __init__(self, machine: Machine, informer: Informer[Pod]) -> None:
        self.workers: dict[str, PodWorker] = {}  # pod uid -> worker
        self._machine = machine
        self._informer = informer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()  # uids of pods whose end is told, but whose object somebody holds

    @property
    def runtime(self) -> Runtime:
        return self._machine.runtime

    def find(self, namespace: str, name: str) -> PodWorker | None:
        for worker in self.workers.values():
            if worker.pod.key == (namespace, name) and not worker.pod.metadata.deletion_timestamp:
                return worker
        return next((w for w in self.workers.values() if w.pod.key == (namespace, name)), None)

    async def run(self) -> None:
        """Until cancelled; containers go on then."""
        await self._informer.synced.wait()
        found = {record.uid: record for _, record in records.pods(self._machine.paths.pods)}
        here = {pod.metadata.uid: pod for pod in self._informer.items.values()}
        self._reserve(found, here)
        if self._machine.cni is not None:
            await asyncio.to_thread(self._machine.cni.forget, found.keys())
        try:
            self._machine.host_ports.begin(self._adopted(found))
        except (NftError, OSError) as error:
            log.warning("host ports can't be put right: %s; those of new pods will say so", error)
        for uid, record in found.items():
            pod = here.get(uid) or record.pod
            worker = self._begin(pod, record)
            if uid not in here:
                log.info("pod %s/%s was deleted while no agent was here", *record.pod.key)
                worker.remove()
        self._informer.on_change(self._changed)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _reserve(self, found: dict[str, records.PodRecord], here: dict[str, Pod]) -> None:
        """Addresses in use first, then those that pods had before: no newcomer may take them."""
        wanted: list[tuple[str, Sequence[str]]] = [(uid, record.addresses) for uid, record in found.items()]
        alive = [p for p in here.values() if p.status.phase not in ("Succeeded", "Failed") and not p.spec.host_network]
        wanted += [(pod.metadata.uid, pod_ips(pod)) for pod in alive]
        for uid, addresses in wanted:
            with suppress(ValueError):
                self._machine.pool.claim(uid, map(ip_address, addresses))

    @staticmethod
    def _adopted(found: dict[str, records.PodRecord]) -> list[tuple[Pod, list[Address]]]:
        return [(r.pod, list(map(ip_address, r.addresses))) for r in found.values() if r.address]

    def _begin(self, pod: Pod, record: records.PodRecord | None = None) -> PodWorker:
        worker = self.workers[pod.metadata.uid] = PodWorker(self._machine, pod, record)
        task = asyncio.get_running_loop().create_task(worker.run(), name=f"pod {pod.namespace}/{pod.name}")
        self._tasks[pod.metadata.uid] = task
        task.add_done_callback(lambda done: self._end(pod.metadata.uid, done))
        return worker

    def _end(self, uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        worker = self.workers.pop(uid, None)
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            if any(pod.metadata.uid == uid for pod in self._informer.items.values()):
                self._over.add(uid)
            return
        log.error("%s: its worker failed: %s", task.get_name(), error, exc_info=error)
        if worker is not None:
            record = next((r for _, r in records.pods(self._machine.paths.pods) if r.uid == uid), None)
            asyncio.get_running_loop().call_later(1.0, self._begin_again, worker.pod, record)

    def _begin_again(self, pod: Pod, record: records.PodRecord | None) -> None:
        if pod.metadata.uid not in self.workers:
            current = self._informer.get(pod.namespace, pod.name)
            same = current is not None and current.metadata.uid == pod.metadata.uid
            worker = self._begin(current if same and current is not None else pod, record)
            if not same:
                worker.remove()

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._over.discard(old.metadata.uid)
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.remove()
        if new is None or new.metadata.uid in self._over:
            return
        worker = self.workers.get(new.metadata.uid)
        if worker is not None:
            worker.update(new)
        else:
            self._begin(new)
