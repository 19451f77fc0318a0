"""The Node object: made at start, kept as the machine is, its pod CIDR waited for."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kubesvc.api import labels, registry
from kubesvc.api.core import Node
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.meta import JSON, format_time
from kubesvc.client.informer import Informer
from kubesvc.client.session import STRATEGIC_PATCH, Session, Unreachable
from kubesvc.node import lease
from kubesvc.node.config import NodeConfig
from kubesvc.node.runtime import RuntimeFailure, find_program

log = logging.getLogger(__name__)

HEARTBEAT = 300.0  # seconds between statuses when nothing changes, as upstream
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
MAX_PODS = 110

# type -> (status, reason, message), in upstream's words
CONDITIONS = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    "NetworkUnavailable": ("False", "RouteCreated", "kubesvc routes every node's pods"),
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of this machine."""

    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str
    cpus: int
    memory: int  # KiB
    runtime: str
    version: str


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def facts(config: NodeConfig, version: str) -> Facts:
    release = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "0")
    return Facts(
        ARCHITECTURES.get(platform.machine(), platform.machine()),
        platform.release(),
        release.get("PRETTY_NAME", "Linux").strip('"'),
        _read("/etc/machine-id"),
        _read("/proc/sys/kernel/random/boot_id"),
        os.cpu_count() or 1,
        int(memory),
        _runtime_version(config.runtime),
        version,
    )


def _runtime_version(name: str) -> str:
    """runc://1.1.5, as a node's status names its runtime."""
    try:
        command = [find_program(name), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (RuntimeFailure, OSError, subprocess.SubprocessError):
        return f"{name}://unknown"
    return f"{name}://{said.split()[2]}" if len(said.split()) > 2 else f"{name}://unknown"


def node_labels(config: NodeConfig, found: Facts) -> dict[str, str]:
    own = {
        labels.HOSTNAME: config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": found.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": found.architecture,
    }
    if config.zone:
        own[labels.ZONE] = config.zone
    return own | dict(config.labels)


def node_status(config: NodeConfig, found: Facts, now: str, since: Mapping[str, str]) -> JSON:
    """`since` maps a condition's type -> when it became what it is."""
    capacity = {"cpu": str(found.cpus), "memory": f"{found.memory}Ki", "pods": str(MAX_PODS)}
    return {
        "addresses": [
            {"type": "InternalIP", "address": str(config.node_ip)},
            {"type": "Hostname", "address": config.node_name},
        ],
        "conditions": [
            {
                "type": name,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since.get(name, now),
            }
            for name, (status, reason, message) in CONDITIONS.items()
        ],
        "capacity": capacity,
        "allocatable": capacity,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "architecture": found.architecture,
            "bootID": found.boot_id,
            "containerRuntimeVersion": found.runtime,
            "kernelVersion": found.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": found.version,
            "machineID": found.machine_id,
            "operatingSystem": "linux",
            "osImage": found.os_image,
            "systemUUID": found.machine_id,
        },
    }


async def register(session: Session, config: NodeConfig, found: Facts) -> None:
    """Make the Node, or bring an existing one's labels and status up to date. Tries until it works."""
    delay = 0.05
    while True:
        try:
            await _register(session, config, found)
            return
        except (ApiError, Unreachable) as error:
            log.warning("node %s can't be registered: %s; again in %.2f s", config.node_name, error, delay)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 2.0)


async def _register(session: Session, config: NodeConfig, found: Facts) -> None:
    own = node_labels(config, found)
    name = config.node_name
    since: dict[str, str] = {}
    status = node_status(config, found, format_time(datetime.now(UTC)), since)
    try:
        # Upstream's API server takes a new Node's status with it: one write, and the scheduler can use the node.
        await session.create(registry.NODE, {"metadata": {"name": name, "labels": own}, "status": status})
        return
    except AlreadyExists:
        known = await session.get(registry.NODE, "", name)
    if any(known["metadata"].get("labels", {}).get(key) != value for key, value in own.items()):
        await session.patch(registry.NODE, "", name, {"metadata": {"labels": own}})
    for condition in known.get("status", {}).get("conditions", []):
        if condition["status"] == CONDITIONS.get(condition["type"], ("",))[0]:
            since[condition["type"]] = condition.get("lastTransitionTime") or format_time(datetime.now(UTC))
    await _patch_status(session, config, found, since)


async def _patch_status(session: Session, config: NodeConfig, found: Facts, since: Mapping[str, str]) -> None:
    patch = {"status": node_status(config, found, format_time(datetime.now(UTC)), since)}
    await session.patch(registry.NODE, "", config.node_name, patch, subresource="status", patch_type=STRATEGIC_PATCH)


async def heartbeat(session: Session, config: NodeConfig, found: Facts, nodes: Informer[Node]) -> None:
    """Say every few minutes that the node is as it was, and at once when it was taken for lost; a deleted Node is made
    again."""
    doubted = asyncio.Event()

    def look(old: Node | None, new: Node | None) -> None:
        if new is not None and new.name == config.node_name and not new.ready:
            doubted.set()

    nodes.on_change(look)
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT * random.uniform(0.9, 1.0)):
                await doubted.wait()
        except TimeoutError:
            pass
        if doubted.is_set():
            doubted.clear()
            try:
                await lease.renew(session, config)
            except (ApiError, Unreachable) as error:
                log.warning("node %s: its Lease can't be renewed: %s", config.node_name, error)
        await register(session, config, found)
