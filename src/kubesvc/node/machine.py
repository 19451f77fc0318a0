"""What all pods of a node share: the programs, the address pool, the way to the API. Made once by main.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import msgspec

from kubesvc.api.pods import Pod
from kubesvc.api.registry import POD
from kubesvc.client.events import NORMAL, WARNING, Recorder
from kubesvc.client.session import Session
from kubesvc.kernel.links import Links
from kubesvc.node import etc
from kubesvc.node.cni.attachments import Attachments
from kubesvc.node.config import NodeConfig, Paths
from kubesvc.node.exits import Exits
from kubesvc.node.followed import Followed
from kubesvc.node.hostports import HostPorts
from kubesvc.node.images.wanted import Images
from kubesvc.node.ipam import AddressPools
from kubesvc.node.runtime import Runtime
from kubesvc.node.sources import Reader
from kubesvc.node.withdrawal import Withdrawal

COMPONENT = "kubelet"  # as upstream names it in events


def _slots() -> asyncio.Semaphore:
    # More at once than there are processors makes every one of them slower and none sooner.
    return asyncio.Semaphore(max(2, (os.cpu_count() or 2) + 1))


class Machine(msgspec.Struct):
    config: NodeConfig
    session: Session
    links: Links  # of the node's namespace
    pool: AddressPools
    runtime: Runtime
    exits: Exits
    events: Recorder
    reader: Reader
    resolver: etc.Resolver  # the machine's own
    withdrawal: Withdrawal
    images: Images
    followed: Followed
    host_ports: HostPorts
    cni: Attachments | None = None  # None: pods' networks are podnet.py's
    allocatable: Mapping[str, str] = {}  # resource -> quantity, of the node
    creating: asyncio.Semaphore = msgspec.field(default_factory=_slots)

    @property
    def paths(self) -> Paths:
        return self.config.paths

    def tell(self, pod: Pod, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """An Event about a pod or one of its containers, as the kubelet's."""
        parts = (("initContainers", pod.spec.init_containers), ("ephemeralContainers", pod.spec.ephemeral_containers))
        part = next((name for name, found in parts if any(c.name == container for c in found)), "containers")
        path = f"spec.{part}{{{container}}}" if container else ""
        self.events.record(COMPONENT, POD, pod, WARNING if warning else NORMAL, reason, message, field_path=path)
