"""The Node object: made at start, kept as the machine is, its pod CIDR waited for."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from kubesvc.api import labels, registry
from kubesvc.api.errors import AlreadyExists, ApiError
from kubesvc.api.meta import JSON, format_time
from kubesvc.api.nodes import Node
from kubesvc.client.informer import Informer
from kubesvc.client.session import STRATEGIC_PATCH, Session, Unreachable
from kubesvc.node import health, lease
from kubesvc.node.config import NodeConfig
from kubesvc.node.health import Conditions
from kubesvc.node.runtime import RuntimeFailure, find_program

log = logging.getLogger(__name__)

HEARTBEAT = 300.0  # seconds between statuses when nothing changes, as upstream
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
MAX_PODS = 110


class Facts(msgspec.Struct, frozen=True):
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
    storage: int = 0  # KiB, of the file system under the pods


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
        _storage(config.run_dir),
    )


def _storage(path: Path) -> int:
    """What the file system has that `path` is on, or will be."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    found = os.statvfs(there)
    return found.f_blocks * found.f_frsize >> 10


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


def capacity(found: Facts) -> dict[str, str]:
    """resource -> quantity"""
    return {
        "cpu": str(found.cpus),
        "memory": f"{found.memory}Ki",
        "ephemeral-storage": f"{found.storage}Ki",
        "pods": str(MAX_PODS),
    }


def node_status(config: NodeConfig, found: Facts, now: str, since: Mapping[str, str], told: Conditions) -> JSON:
    """`since` maps a condition's type -> when it became what it is."""
    has = capacity(found)
    return {
        "addresses": [
            *({"type": "InternalIP", "address": str(ip)} for ip in config.node_ips),
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
            for name, (status, reason, message) in told.items()
        ],
        "capacity": has,
        "allocatable": has,
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


async def register(session: Session, config: NodeConfig, found: Facts, told: Conditions) -> None:
    """Make the Node, or bring an existing one's labels and status up to date. Tries until it works."""
    delay = 0.05
    while True:
        try:
            await _register(session, config, found, told)
            return
        except (ApiError, Unreachable) as error:
            log.warning("node %s can't be registered: %s; again in %.2f s", config.node_name, error, delay)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 2.0)


async def _register(session: Session, config: NodeConfig, found: Facts, told: Conditions) -> None:
    own = node_labels(config, found)
    name = config.node_name
    since: dict[str, str] = {}
    status = node_status(config, found, format_time(datetime.now(UTC)), since, told)
    try:
        # Upstream's API server takes a new Node's status with it: one write, and the scheduler can use the node.
        await session.create(registry.NODE, {"metadata": {"name": name, "labels": own}, "status": status})
        return
    except AlreadyExists:
        known = await session.get(registry.NODE, "", name)
    if any(known["metadata"].get("labels", {}).get(key) != value for key, value in own.items()):
        await session.patch(registry.NODE, "", name, {"metadata": {"labels": own}})
    for condition in known.get("status", {}).get("conditions", []):
        if condition["status"] == told.get(condition["type"], ("",))[0]:
            since[condition["type"]] = condition.get("lastTransitionTime") or format_time(datetime.now(UTC))
    status = node_status(config, found, format_time(datetime.now(UTC)), since, told)
    # The list's merge key is the type, and a node may have two addresses of one: as upstream's kubelet does it.
    status["addresses"].insert(0, {"$patch": "replace"})
    patch = {"status": status}
    await session.patch(registry.NODE, "", name, patch, subresource="status", patch_type=STRATEGIC_PATCH)


async def heartbeat(session: Session, config: NodeConfig, found: Facts, nodes: Informer[Node]) -> None:
    """Look at the machine every few seconds. Say how the node is when that has changed, every few minutes when nothing
    has, and at once when it was taken for lost; a deleted Node is made again."""
    doubted = asyncio.Event()
    told = health.conditions(health.observe(config))

    def look(old: Node | None, new: Node | None) -> None:
        if new is not None and new.name == config.node_name:
            said = next((c.status for c in new.status.conditions if c.type == "Ready"), "")
            if said != told["Ready"][0]:
                doubted.set()

    nodes.on_change(look)
    loop = asyncio.get_running_loop()
    due = loop.time() + HEARTBEAT
    while True:
        now = health.conditions(health.observe(config))
        if doubted.is_set() or now != told or loop.time() >= due:
            _log_changes(config, told, now)
            told = now
            if doubted.is_set():
                doubted.clear()
                try:
                    await lease.renew(session, config)
                except (ApiError, Unreachable) as error:
                    log.warning("node %s: its Lease can't be renewed: %s", config.node_name, error)
            await register(session, config, found, told)
            due = loop.time() + HEARTBEAT * random.uniform(0.9, 1.0)
        try:
            async with asyncio.timeout(config.health_interval):
                await doubted.wait()
        except TimeoutError:
            pass


def _log_changes(config: NodeConfig, before: Conditions, now: Conditions) -> None:
    for name, (status, _, message) in now.items():
        if before[name][0] != status:
            log.warning("node %s: %s is %s: %s", config.node_name, name, status, message)
