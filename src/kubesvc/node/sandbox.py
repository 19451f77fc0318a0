"""What the containers of a pod share: its network and host ports, its volumes, its files in /etc. pod.py says when.

prepare    once: an address, a namespace, volumes, hosts and resolv.conf; before each start: what variables are of
refresh    while it runs: volumes made of objects that have changed
remove     everything, in the other order
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from kubesvc.api.core import Service
from kubesvc.api.pods import Container, Pod, ResourceFieldSelector
from kubesvc.kernel import mounts
from kubesvc.node import (
    bundles,
    claims,
    environment,
    etc,
    mounting,
    podnet,
    profiles,
    reaper,
    records,
    security,
    volumes,
)
from kubesvc.node.bundles import Surroundings
from kubesvc.node.cni.attachments import Attachments
from kubesvc.node.cni.network import CniError
from kubesvc.node.config import Address, PodPaths
from kubesvc.node.environment import ConfigError, Sources
from kubesvc.node.images.image import Image, base_environment
from kubesvc.node.machine import Machine
from kubesvc.node.records import PodRecord
from kubesvc.node.spec import Bind
from kubesvc.node.tokens import Tokens

_SOON = 1.0  # seconds


class Sandbox:
    """Of one pod. `record` is what is on disk of it; `changed` is called when `refresh` has something to do."""

    def __init__(
        self, machine: Machine, paths: PodPaths, changed: Callable[[], None], record: PodRecord | None
    ) -> None:
        self.record = record
        self.addresses = record.addresses if record else ()
        self._machine, self._paths, self._changed = machine, paths, changed
        self._started_at = record.started_at if record else time.time()
        self._connected = False  # the network is there
        self._ready = False  # the network, volumes and files are there
        self._followed = False  # changes of what its volumes are made of are told
        self._stale = False  # there was one
        self._sources = Sources({}, {})
        self._services: list[Service] = []
        self._tokens = Tokens(machine.session)

    @property
    def address(self) -> str:
        """The primary one; "" before there is one."""
        return self.addresses[0] if self.addresses else ""

    @property
    def _host_ips(self) -> list[str]:
        return list(map(str, self._machine.config.node_ips))

    # ── before a start ───────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, pod: Pod) -> None:
        """Network, volumes and files, once; ConfigMaps, Secrets and Services, as they are at each start.

        Raises OSError, ApiError, Unreachable, ConfigError, HostnameTooLong, Exhausted, HostPortRefused,
        CniError.
        """
        reader = self._machine.reader
        await self.learn_features(pod)
        network = asyncio.ensure_future(self._network(pod))
        try:
            self._sources, self._services, tokens = await asyncio.gather(
                reader.sources(pod), reader.services(pod), self._tokens.current(pod)
            )
            self._sources.tokens = tokens
        finally:
            await asyncio.wait((network,))
        network.result()
        if pod.spec.share_process_namespace:
            await asyncio.to_thread(reaper.ensure, self._paths)
        if not self._ready:
            await asyncio.to_thread(self._files, pod)
            self._ready = True
            self.follow(pod)

    async def learn_features(self, pod: Pod) -> None:
        """What the machine can do, if the pod asks for what some can't."""
        if mounting.is_asked_for(pod) or any(security.seccomp(pod, c) is not None for c in pod.spec.every_container):
            await self._machine.runtime.learn_features()

    async def _network(self, pod: Pod) -> None:
        if self._connected:
            return
        machine, own = self._machine, not pod.spec.host_network
        uid, node_ips = pod.metadata.uid, machine.config.node_ips
        if own and machine.cni is not None:
            await self._attach(machine.cni, pod)
            self._connected = True
            return
        given = machine.pool.allocate(uid, _wanted(self.addresses or pod_ips(pod))) if own else node_ips
        self.addresses = tuple(map(str, given))
        self._save_record(pod, self.addresses if own else ())
        if own:
            await asyncio.to_thread(
                podnet.attach, machine.links, node_ips, uid, self._paths.netns, given, machine.config.mtu
            )
            machine.host_ports.open(pod, given)
        self._connected = True

    async def _attach(self, attachments: Attachments, pod: Pod) -> None:
        """To a network of CNI plugins. Known to be begun before it is: it will be undone."""
        self._save_record(pod, self.addresses)
        await asyncio.to_thread(podnet.make_namespace, self._paths.netns, True)
        given = await asyncio.to_thread(attachments.add, pod, self._paths.netns)
        self.addresses = tuple(map(str, given))
        self._save_record(pod, self.addresses)
        if not attachments.has_host_ports:
            self._machine.host_ports.open(pod, given)

    def _save_record(self, pod: Pod, addresses: Sequence[str]) -> None:
        self._paths.root.mkdir(parents=True, exist_ok=True)
        first, *more = addresses or ("",)
        self.record = PodRecord(pod, first, self._started_at, tuple(more))
        records.save(self._paths.record, self.record)

    def _files(self, pod: Pod) -> None:
        config, folder = self._machine.config, self._paths.etc
        volumes.prepare(
            claims.resolve(pod, self._sources), self._paths, self._sources, lambda path: self._field(pod, path)
        )
        folder.mkdir(parents=True, exist_ok=True)
        if pod.spec.host_network:
            hosts = etc.hosts_of_node(config.hosts.read_text() if config.hosts.exists() else "", pod)
        else:
            hosts = etc.hosts(pod, self.addresses, config.dns_domain)
        (folder / "hosts").write_text(hosts)
        (folder / "hostname").write_text(self._hostname(pod) + "\n")
        servers = [str(address) for address in config.cluster_dns]
        wanted = etc.resolver(pod, self._machine.resolver, servers, config.dns_domain)
        resolver, told = etc.within_limits(wanted)
        (folder / "resolv.conf").write_text(resolver.render())
        for message in told:
            self._machine.tell(pod, "DNSConfigForming", message, warning=True)

    def _hostname(self, pod: Pod) -> str:
        config = self._machine.config
        return etc.kernel_hostname(pod, config.node_name, config.dns_domain)

    def _field(self, pod: Pod, path: str | ResourceFieldSelector) -> str:
        if isinstance(path, ResourceFieldSelector):
            return environment.resource_value(path, pod, None, self._machine.allocatable)
        return environment.field_value(path, pod, self.addresses, self._host_ips)

    def around(self, pod: Pod, container: Container, image: Image, processes: Path | None) -> Surroundings:
        """What one container of an image gets; `processes`: the PID namespace that it shares.

        Raises ConfigError, RuntimeFailure."""
        hostname = self._hostname(pod)
        variables = environment.build(
            container,
            pod,
            self._sources,
            self._services,
            addresses=self.addresses,
            host_ips=self._host_ips,
            base=base_environment(image, environment.PATH, hostname),
            allocatable=self._machine.allocatable,
        )
        files = [Bind(str(self._paths.etc / name), f"/etc/{name}") for name in ("hosts", "hostname", "resolv.conf")]
        resolved, deep = claims.resolve(pod, self._sources), self._machine.runtime.features.all_read_only
        binds = [*files, *volumes.binds(resolved, container, self._paths, variables, all_read_only=deep)]
        network = None if pod.spec.host_network else self._paths.netns
        if pod.spec.share_process_namespace:
            processes = self._paths.pidns
        seccomp = profiles.load(self._machine.config, self._machine.runtime, pod, container)
        return Surroundings(self.address, network, hostname, variables, binds, processes, seccomp)

    # ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, pod: Pod) -> None:
        """From now on, what is mounted is kept as its objects are."""
        self._followed = True
        self._machine.followed.follow(pod, self.outdated)

    def outdated(self) -> None:
        """Something that a volume may be made of has changed."""
        self._stale = True
        self._changed()

    async def refresh(self, pod: Pod) -> float | None:
        """What is mounted, as it is now, if it has changed; when (Unix time) to look again at the latest.

        Raises OSError, ApiError, Unreachable."""
        if not self._followed:
            return None
        due = self._tokens.due(pod)
        if not self._stale and (due is None or time.time() < due):
            return due
        self._stale = False
        sources = self._machine.followed.sources(pod)
        if sources is None:
            return None if due is None else max(due, time.time() + _SOON)
        try:
            sources.tokens = await self._tokens.current(pod)
            await asyncio.to_thread(volumes.refresh, pod, self._paths, sources, lambda path: self._field(pod, path))
        except ConfigError as error:
            self._machine.tell(pod, "FailedMount", str(error), warning=True)
        return self._tokens.due(pod)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def leave_network(self, pod: Pod) -> None:
        """Nothing of the pod runs any more: its address is free. Again is fine."""
        self._machine.followed.leave(pod)
        if pod.spec.share_process_namespace:
            await asyncio.to_thread(reaper.remove, self._paths)
        if not pod.spec.host_network:
            self._machine.host_ports.close(pod)
            if self._machine.cni is not None:
                await self._detach(self._machine.cni, pod)
            await asyncio.to_thread(podnet.detach, self._machine.links, pod.metadata.uid, self._paths.netns)
        self._machine.pool.release(pod.metadata.uid)

    async def _detach(self, attachments: Attachments, pod: Pod) -> None:
        """What a plugin refuses to undo is tried again by the next agent: the pod needn't wait for it."""
        try:
            await asyncio.to_thread(attachments.delete, pod.metadata.uid)
        except CniError as error:
            self._machine.tell(pod, "FailedKillPod", str(error), warning=True)

    async def make_room(self) -> None:
        """What an evicted pod has written goes; logs and records stay until the pod does. Again is fine."""
        await asyncio.to_thread(self._make_room)

    def _make_room(self) -> None:
        for written in (self._paths.volumes, self._paths.images):
            mounts.unmount_all(written)
            shutil.rmtree(written, ignore_errors=True)
        for bundle in self._paths.containers.glob("*/*"):
            bundles.empty(bundle)

    async def remove(self, pod: Pod) -> None:
        """Everything, files too."""
        await self.leave_network(pod)
        await asyncio.to_thread(self._remove_files)

    def _remove_files(self) -> None:
        mounts.unmount_all(self._paths.root)
        shutil.rmtree(self._paths.root, ignore_errors=True)


def pod_ips(pod: Pod) -> tuple[str, ...]:
    """What the API remembers of a pod's addresses."""
    return tuple(a.ip for a in pod.status.pod_ips) or tuple(filter(None, [pod.status.pod_ip]))


def _wanted(texts: Iterable[str]) -> list[Address]:
    try:
        return list(map(ip_address, texts))
    except ValueError:
        return []
