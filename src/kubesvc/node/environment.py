"""A container's environment: Services, envFrom, env with valueFrom, and `$(VAR)` expansion. Pure.

Order and precedence follow upstream (kubelet_pods.go, makeEnvironmentVariables): Service variables lose against
envFrom, envFrom against env; an entry of env sees everything before it. A `$(VAR)` that isn't known stays, `$$` is `$`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from kubesvc.api.core import ConfigMap, Secret, Service
from kubesvc.api.pods import (
    Container,
    EnvVarSource,
    KeySelector,
    Pod,
    ResourceFieldSelector,
    ServiceAccountTokenProjection,
)
from kubesvc.node import resources

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigError(Exception):
    """Something the container refers to isn't there; the message names it, in upstream's words."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(VAR)` by its value; `$$(VAR)` is the text `$(VAR)`; an unknown VAR stays."""

    def put(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return variables.get(found[2], found[0])

    return _REFERENCE.sub(put, text)


def unknown(text: str, variables: Mapping[str, str]) -> str:
    """The first VAR of a `$(VAR)` in `text` that isn't known; "" when all are."""
    found = (match[2] for match in _REFERENCE.finditer(text) if match[1] != "$")
    return next((name for name in found if name not in variables), "")


def field_value(path: str, pod: Pod, addresses: Sequence[str], host_ips: Sequence[str]) -> str:
    """A downward-API field of the pod. Raises ConfigError for one that isn't offered."""
    if subscript := _SUBSCRIPT.fullmatch(path):
        where = pod.metadata.labels if subscript[1] == "labels" else pod.metadata.annotations
        return where.get(subscript[2], "")
    values = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.podIP": "".join(addresses[:1]),
        "status.podIPs": ",".join(addresses),
        "status.hostIP": "".join(host_ips[:1]),
        "status.hostIPs": ",".join(host_ips),
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def service_variables(services: Iterable[Service]) -> dict[str, str]:
    """What every Service with a cluster IP says of itself: NAME_SERVICE_HOST, NAME_PORT_80_TCP_ADDR, …"""
    found: dict[str, str] = {}
    for service in services:
        address = service.spec.cluster_ip
        if not address or address == "None" or not service.spec.ports:
            continue
        name = service.name.upper().replace("-", "_")
        first = service.spec.ports[0]
        found[f"{name}_SERVICE_HOST"] = address
        found[f"{name}_SERVICE_PORT"] = str(first.port)
        shown = f"[{address}]" if ":" in address else address
        found[f"{name}_PORT"] = f"{first.protocol.lower()}://{shown}:{first.port}"
        for port in service.spec.ports:
            if port.name:
                found[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
            prefix = f"{name}_PORT_{port.port}_{port.protocol.upper()}"
            found[prefix] = f"{port.protocol.lower()}://{shown}:{port.port}"
            found[f"{prefix}_PROTO"] = port.protocol.lower()
            found[f"{prefix}_PORT"] = str(port.port)
            found[f"{prefix}_ADDR"] = address
    return found


class Sources:
    """The ConfigMaps and Secrets of the pod's namespace that were found, by name; the tokens its volumes ask for."""

    def __init__(
        self,
        config_maps: Mapping[str, ConfigMap],
        secrets: Mapping[str, Secret],
        claims: Mapping[str, str] | None = None,
        tokens: Mapping[ServiceAccountTokenProjection, str] | None = None,
    ) -> None:
        self.tokens = tokens or {}
        self.claims = claims or {}  # a PersistentVolumeClaim -> its directory, "" while it has none
        self.config_maps = config_maps
        self.secrets = secrets

    def config_map(self, name: str) -> dict[str, str] | None:
        found = self.config_maps.get(name)
        return None if found is None else found.data

    def secret(self, name: str) -> dict[str, str] | None:
        found = self.secrets.get(name)
        return None if found is None else {k: decode(v).decode(errors="replace") for k, v in found.data.items()}


def decode(value: str) -> bytes:
    """A Secret's value. Raises ConfigError when it isn't base64."""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"a Secret's value is not base64: {error}") from error


def referenced(pod: Pod) -> tuple[set[str], set[str]]:
    """The names of the ConfigMaps and of the Secrets that the pod's containers and volumes refer to."""
    maps, secrets = mounted(pod)
    for container in pod.spec.every_container:
        for source in container.env_from:
            maps |= {source.config_map_ref.name} if source.config_map_ref else set()
            secrets |= {source.secret_ref.name} if source.secret_ref else set()
        for variable in container.env:
            value = variable.value_from or EnvVarSource()
            maps |= {value.config_map_key_ref.name} if value.config_map_key_ref else set()
            secrets |= {value.secret_key_ref.name} if value.secret_key_ref else set()
    return maps, secrets


def mounted(pod: Pod) -> tuple[set[str], set[str]]:
    """Those of the pod's volumes alone."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for volume in pod.spec.volumes:
        maps |= {volume.config_map.name} if volume.config_map else set()
        secrets |= {volume.secret.secret_name} if volume.secret else set()
        for part in volume.projected.sources if volume.projected else ():
            maps |= {part.config_map.name} if part.config_map else set()
            secrets |= {part.secret.name} if part.secret else set()
    return maps, secrets


def _key(what: str, pod: Pod, selector: KeySelector, data: Mapping[str, str] | None) -> str | None:
    if data is not None and selector.key in data:
        return data[selector.key]
    if selector.optional:
        return None
    if data is None:
        raise ConfigError(f'{what.lower()} "{selector.name}" not found')
    raise ConfigError(f"couldn't find key {selector.key} in {what} {pod.namespace}/{selector.name}")


def resource_value(
    wanted: ResourceFieldSelector, pod: Pod, own: Container | None, allocatable: Mapping[str, str]
) -> str:
    """A downward-API field of a container's resources. Raises ConfigError."""
    try:
        return resources.of_container(wanted, pod, own, allocatable)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _from_source(source: EnvVarSource, pod: Pod, sources: Sources) -> str | None:
    if source.config_map_key_ref:
        selector = source.config_map_key_ref
        return _key("ConfigMap", pod, selector, sources.config_map(selector.name))
    if source.secret_key_ref:
        selector = source.secret_key_ref
        return _key("Secret", pod, selector, sources.secret(selector.name))
    raise ConfigError("valueFrom: only fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef are supported")


def build(
    container: Container,
    pod: Pod,
    sources: Sources,
    services: Sequence[Service],
    *,
    addresses: Sequence[str],
    host_ips: Sequence[str],
    base: Mapping[str, str],
    allocatable: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The whole environment, on top of `base`; `allocatable` is what the node has.

    Raises ConfigError for what is missing and isn't optional.
    """
    found: dict[str, str] = dict(base)
    found |= service_variables(services)
    for source in container.env_from:
        for what, reference, read in (
            ("configmap", source.config_map_ref, sources.config_map),
            ("secret", source.secret_ref, sources.secret),
        ):
            if reference is None:
                continue
            data = read(reference.name)
            if data is None and not reference.optional:
                raise ConfigError(f'{what} "{reference.name}" not found')
            found |= {source.prefix + key: value for key, value in (data or {}).items()}
    for variable in container.env:
        if variable.value_from is not None:
            source_of = variable.value_from
            value: str | None
            if source_of.field_ref:
                value = field_value(source_of.field_ref.field_path, pod, addresses, host_ips)
            elif source_of.resource_field_ref:
                value = resource_value(source_of.resource_field_ref, pod, container, allocatable)
            else:
                value = _from_source(source_of, pod, sources)
            if value is not None:
                found[variable.name] = value
        else:
            found[variable.name] = expand(variable.value, found)
    return found
