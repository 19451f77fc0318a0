"""Why a pod's containers can't be: names, images, ports, variables, mounts, probes, resources.

Source: pkg/apis/core/validation/validation.go, validateContainers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubesvc.api import names
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.api.quantity import quantity
from kubesvc.apiserver.admission.causes import duplicate, forbidden, invalid, not_found, not_supported, required

NEGATIVE = "must be greater than or equal to 0"
PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL = ("Always", "IfNotPresent", "Never")
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_SECCOMP = ("Localhost", "RuntimeDefault", "Unconfined")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def validate(spec: JSON, path: str, *more: str) -> Iterator[Cause]:
    """Every container of the pod spec at `path`; also those of the lists `more`."""
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    volumes = {v.get("name") for v in spec.get("volumes") or ()}
    seen: set[str] = set()  # container names
    host_ports: set[tuple[Any, ...]] = set()  # (protocol, host IP, host port)
    for group in ("initContainers", "containers", *more):
        for index, container in enumerate(spec.get(group) or ()):
            here = f"{path}.{group}[{index}]"
            name = container.get("name") or ""
            if not name:
                yield required(f"{here}.name")
            elif problems := names.label(name):
                yield from (invalid(f"{here}.name", name, why) for why in problems)
            elif name in seen:
                yield duplicate(f"{here}.name", name)
            seen.add(name)
            yield from _image(container, here)
            yield from _ports(container, here, host_ports)
            yield from _environment(container, here)
            yield from _mounts(container, here, volumes)
            yield from _propagation(container, here)
            yield from _probes(container, here)
            yield from _resources(container.get("resources") or {}, f"{here}.resources")
            context = container.get("securityContext") or {}
            yield from _security(context, f"{here}.securityContext")
            yield from _proc_mount(context, f"{here}.securityContext.procMount", spec)


def _image(container: JSON, path: str) -> Iterator[Cause]:
    image = container.get("image") or ""
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        yield invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    yield from validate_pull_policy(container, f"{path}.imagePullPolicy", "imagePullPolicy")


def validate_pull_policy(tree: JSON, path: str, field: str) -> Iterator[Cause]:
    """The policy in `field` of a container or an image volume."""
    policy = tree.get(field) or ""
    if policy not in _PULL:
        yield not_supported(path, policy, _PULL)


def _ports(container: JSON, path: str, host_ports: set[tuple[Any, ...]]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        here = f"{path}.ports[{index}]"
        if name := port.get("name"):
            if problems := names.port_name(name):
                yield from (invalid(f"{here}.name", name, why) for why in problems)
            elif name in seen:
                yield duplicate(f"{here}.name", name)
            seen.add(name)
        number, protocol = port.get("containerPort") or 0, port.get("protocol") or "TCP"
        if not number:
            yield required(f"{here}.containerPort")
        else:
            yield from (invalid(f"{here}.containerPort", number, why) for why in names.port_number(number))
        if protocol not in PROTOCOLS:
            yield not_supported(f"{here}.protocol", protocol, PROTOCOLS)
        if host_port := port.get("hostPort"):
            yield from (invalid(f"{here}.hostPort", host_port, why) for why in names.port_number(host_port))
            key = (protocol, port.get("hostIP") or "", host_port)
            if key in host_ports:
                yield duplicate(f"{here}.hostPort", "/".join(str(part) for part in key))
            host_ports.add(key)


def _environment(container: JSON, path: str) -> Iterator[Cause]:
    for index, variable in enumerate(container.get("env") or ()):
        here = f"{path}.env[{index}]"
        if not (name := variable.get("name") or ""):
            yield required(f"{here}.name")
        else:
            yield from (invalid(f"{here}.name", name, why) for why in names.env_name(name))
        source = variable.get("valueFrom")
        if source is None:
            continue
        given = [k for k in source if source[k] is not None]
        if variable.get("value"):
            yield invalid(f"{here}.valueFrom", "", "may not be specified when `value` is not empty")
        if not given:
            fields = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            yield invalid(f"{here}.valueFrom", "", f"must specify one of: {fields}")
        elif len(given) > 1:
            yield invalid(f"{here}.valueFrom", "", "may not have more than one field specified at a time")
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if kind in given:
                for part in ("name", "key"):
                    if not source[kind].get(part):
                        yield required(f"{here}.valueFrom.{kind}.{part}")
    for index, source in enumerate(container.get("envFrom") or ()):
        here = f"{path}.envFrom[{index}]"
        given = [k for k in ("configMapRef", "secretRef") if source.get(k) is not None]
        if len(given) > 1:
            yield invalid(here, "", "may not have more than one field specified at a time")
        elif not given:
            yield invalid(here, "", "must specify one of: `configMapRef` or `secretRef`")


def _mounts(container: JSON, path: str, volumes: set[Any]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        here = f"{path}.volumeMounts[{index}]"
        if not (name := mount.get("name") or ""):
            yield required(f"{here}.name")
        elif name not in volumes:
            yield not_found(f"{here}.name", name)
        if not (target := mount.get("mountPath") or ""):
            yield required(f"{here}.mountPath")
        elif target in seen:
            yield invalid(f"{here}.mountPath", target, "must be unique")
        seen.add(target)
        for field in ("subPath", "subPathExpr"):
            sub = mount.get(field) or ""
            if sub.startswith("/"):
                yield invalid(f"{here}.{field}", sub, "must be a relative path")
            elif ".." in sub.split("/"):
                yield invalid(f"{here}.{field}", sub, "must not contain '..'")
        if mount.get("subPath") and mount.get("subPathExpr"):
            why = "subPathExpr and subPath are mutually exclusive"
            yield invalid(f"{here}.subPathExpr", mount["subPathExpr"], why)


def _propagation(container: JSON, path: str) -> Iterator[Cause]:
    """Upstream names no mount of the list here."""
    privileged = (container.get("securityContext") or {}).get("privileged")
    for mount in container.get("volumeMounts") or ():
        way, deep = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
        here = f"{path}.volumeMounts.mountPropagation"
        if way is not None and way not in _PROPAGATION:
            yield not_supported(here, way, _PROPAGATION)
        if way == "Bidirectional" and not privileged:
            yield forbidden(here, "Bidirectional mount propagation is available only to privileged containers")
        here = f"{path}.volumeMounts.recursiveReadOnly"
        if deep in ("Enabled", "IfPossible"):
            if not mount.get("readOnly"):
                yield forbidden(here, "may only be specified when readOnly is true")
            if way not in (None, "None"):
                yield forbidden(here, "may only be specified when mountPropagation is None or not specified")
        elif deep not in (None, "Disabled"):
            yield not_supported(here, deep, ("Disabled", "Enabled", "IfPossible"))


def _probes(container: JSON, path: str) -> Iterator[Cause]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(name)) is None:
            continue
        here = f"{path}.{name}"
        yield from _handler(probe, here)
        for number in (
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ):
            if (probe.get(number) or 0) < 0:
                yield invalid(f"{here}.{number}", probe[number], NEGATIVE)
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield invalid(f"{here}.successThreshold", probe["successThreshold"], "must be 1")
    for name, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield from _handler(handler, f"{path}.lifecycle.{name}")


def _handler(handler: JSON, path: str) -> Iterator[Cause]:
    given = [k for k in _HANDLERS if handler.get(k) is not None]
    if not given:
        yield required(path, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    if "exec" in given and not handler["exec"].get("command"):
        yield required(f"{path}.exec.command")
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if kind in given:
            port = handler[kind].get("port", 0)
            problems = names.port_number(port) if isinstance(port, int) else names.port_name(port)
            yield from (invalid(f"{path}.{kind}.port", port, why) for why in problems)
    if "httpGet" in given and handler["httpGet"].get("scheme") not in ("HTTP", "HTTPS"):
        yield not_supported(f"{path}.httpGet.scheme", handler["httpGet"].get("scheme"), ("HTTP", "HTTPS"))


def validate_seccomp(context: JSON, path: str) -> Iterator[Cause]:
    """The profile of a pod's or a container's securityContext at `path`."""
    profile = context.get("seccompProfile")
    if profile is None:
        return
    here = f"{path}.seccompProfile"
    kind, file = profile.get("type") or "", profile.get("localhostProfile")
    if not kind:
        yield required(f"{here}.type", "type is required when seccompProfile is set")
    elif kind not in _SECCOMP:
        yield not_supported(f"{here}.type", kind, _SECCOMP)
    here = f"{here}.localhostProfile"
    if kind != "Localhost":
        if file is not None:
            yield invalid(here, file, "can only be set when seccomp type is Localhost")
    elif file is None:
        yield required(here, "must be set when seccomp type is Localhost")
    elif file.startswith("/"):
        yield invalid(here, file, "must be a relative path")
    elif ".." in file.split("/"):
        yield invalid(here, file, "must not contain '..'")


def _proc_mount(context: JSON, path: str, spec: JSON) -> Iterator[Cause]:
    kind = context.get("procMount")
    if kind not in (None, "Default", "Unmasked"):
        yield not_supported(path, kind, ("Default", "Unmasked"))
    elif kind == "Unmasked" and spec.get("hostUsers") is not False:
        yield invalid(path, kind, "`hostUsers` must be false to use `Unmasked`")


def _security(context: JSON, path: str) -> Iterator[Cause]:
    yield from validate_seccomp(context, path)
    for field in ("runAsUser", "runAsGroup"):
        if (context.get(field) or 0) < 0:
            yield invalid(f"{path}.{field}", context[field], "must be between 0 and 2147483647, inclusive")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(path, "", why)
        if "SYS_ADMIN" in {
            c.upper().removeprefix("CAP_") for c in (context.get("capabilities") or {}).get("add") or ()
        }:
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid(path, "", why)


def _resources(resources: JSON, path: str) -> Iterator[Cause]:
    limits = resources.get("limits") or {}
    for group in ("limits", "requests"):
        for name, amount in (resources.get(group) or {}).items():
            value = quantity(amount)
            if value is not None and value < 0:
                yield invalid(f"{path}.{group}.{name}", str(amount), NEGATIVE)
    for name, amount in (resources.get("requests") or {}).items():
        value, limit = quantity(amount), quantity(limits[name]) if name in limits else None
        if value is not None and limit is not None and value > limit:
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            yield invalid(f"{path}.requests", str(amount), why)
