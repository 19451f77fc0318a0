"""A CNI network: its configuration, what a plugin is asked, and what its answers mean. Pure.

https://github.com/containernetworking/cni/blob/spec-v1.0.0/SPEC.md, and the conventions for `runtimeConfig`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from typing import Any

import msgspec

from kubesvc.api.pods import Pod
from kubesvc.node.ipam import Address, Network

JSON = dict[str, Any]

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0")
WITHOUT_CHECK = ("0.3.0", "0.3.1")  # versions that know neither CHECK nor a DEL that is told the result of ADD
INTERFACE = "eth0"


class CniError(Exception):
    """A configuration that can't be used, a plugin that is missing, or one that refused. The message says which."""


class CniNetwork(msgspec.Struct, frozen=True):
    """A configuration list."""

    name: str
    version: str
    plugins: tuple[JSON, ...]
    disable_check: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """The plugins' programs."""
        return tuple(plugin["type"] for plugin in self.plugins)

    def can(self, capability: str) -> bool:
        """Whether a plugin wants to be told this."""
        return any(plugin.get("capabilities", {}).get(capability) is True for plugin in self.plugins)

    def to_tree(self) -> JSON:
        return {
            "cniVersion": self.version,
            "name": self.name,
            "plugins": list(self.plugins),
            "disableCheck": self.disable_check,
        }


def parse(data: bytes, where: str) -> CniNetwork:
    """A configuration list, or a single plugin's configuration as versions before 1.0 have it. Raises CniError."""
    try:
        tree = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise CniError(f"{where} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CniError(f"{where}: expected an object with cniVersion, name and plugins")
    plugins = tree.get("plugins", [tree] if "type" in tree else None)
    version, name = tree.get("cniVersion", ""), tree.get("name")
    if version not in VERSIONS:
        raise CniError(f"{where}: cniVersion {version!r}: expected one of {', '.join(VERSIONS)}")
    if not isinstance(name, str) or not name:
        raise CniError(f"{where} has no name")
    if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) and p.get("type") for p in plugins):
        raise CniError(f"{where}: expected a list of plugins, each with a type")
    for plugin in plugins:
        if "/" in plugin["type"]:
            raise CniError(f"{where}: plugin type {plugin['type']!r}: expected the name of a program, without a path")
    return CniNetwork(name, version, tuple(plugins), tree.get("disableCheck") in (True, "true"))


def request(network: CniNetwork, plugin: JSON, told: Mapping[str, Any], previous: JSON | None) -> JSON:
    """What a plugin is given on its standard input. `told` maps a capability -> its value."""
    found = {key: value for key, value in plugin.items() if key != "capabilities"}
    found |= {"cniVersion": network.version, "name": network.name}
    wanted = plugin.get("capabilities", {})
    runtime = {name: value for name, value in told.items() if wanted.get(name) is True}
    if runtime:
        found["runtimeConfig"] = runtime
    if previous is not None:
        found["prevResult"] = previous
    return found


def capabilities(pod: Pod, pod_cidrs: Iterable[Network]) -> JSON:
    """What plugins may be told of a pod: the node's ranges, and the pod's host ports."""
    ports = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.lower(),
            "hostIP": port.host_ip,
        }
        for container in pod.spec.every_container
        for port in container.ports
        if port.host_port
    ]
    found: JSON = {"ipRanges": [[{"subnet": str(cidr)}] for cidr in pod_cidrs]}
    return found | ({"portMappings": ports} if ports else {})


def arguments(pod: Pod) -> str:
    """CNI_ARGS, as Kubernetes' runtimes set it."""
    values = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": pod.metadata.uid,
        "K8S_POD_UID": pod.metadata.uid,
    }
    return ";".join(f"{key}={value}" for key, value in values.items())


def addresses(result: JSON) -> tuple[Address, ...]:
    """The pod's addresses, in the result's order: the first of each family. Raises CniError."""
    interfaces = result.get("interfaces") or []
    found: dict[int, Address] = {}  # version -> address
    try:
        for entry in result.get("ips") or []:
            index = entry.get("interface")
            if index is not None and interfaces and not interfaces[index].get("sandbox"):
                continue  # an address of the node's own
            address = ip_interface(entry["address"]).ip
            found.setdefault(address.version, address)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CniError(f"the plugins' result can't be understood: {error!r}") from error
    if not found:
        raise CniError("the plugins gave the pod no IP address; is `ipam` part of the configuration?")
    return tuple(found.values())


def refusal(output: bytes) -> str:
    """Why a plugin failed, as it says on its standard output."""
    try:
        tree = msgspec.json.decode(output)
        return ": ".join(str(tree[key]) for key in ("msg", "details") if tree.get(key))
    except (msgspec.DecodeError, TypeError, AttributeError):
        return output.decode(errors="replace").strip()
