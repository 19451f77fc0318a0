"""What a pod and a pod template mean when they don't say.

`template` holds for both; `default` adds what only a pod itself gets (upstream: the defaults of Pod, and the
ServiceAccount, DefaultTolerationSeconds and Priority admission plugins). Source: pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import claim_template

MODE = 0o644
EVICTION_DELAY = 300
"""Seconds a pod stays bound to a node that is not ready or unreachable, unless its tolerations say otherwise."""


def default(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    template(spec)
    spec.setdefault("enableServiceLinks", True)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    _tolerations(spec)
    for container in containers(spec):
        if spec.get("hostNetwork"):
            for port in _objects(container.get("ports")):
                if not port.get("hostPort") and "containerPort" in port:
                    port["hostPort"] = port["containerPort"]
        limits, requests = container["resources"].get("limits"), container["resources"].get("requests")
        if limits:
            container["resources"]["requests"] = {**limits, **(requests or {})}


def template(spec: JSON) -> None:
    """The defaults of a PodSpec wherever it stands."""
    for name, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ):
        if not spec.get(name):
            spec[name] = value
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    for container in (*containers(spec), *_objects(spec.get("ephemeralContainers"))):
        _container(container)
    for volume in _objects(spec.get("volumes")):
        _volume(volume)


def containers(spec: JSON) -> Iterator[JSON]:
    for name in ("initContainers", "containers"):
        yield from _objects(spec.get(name))


def _objects(found: Any) -> list[JSON]:
    return [o for o in found or () if isinstance(o, dict)] if isinstance(found, list) else []


def pull_policy(image: str) -> str:
    """Always for :latest and for no tag at all; a digest pins, so IfNotPresent."""
    _, _, rest = image.rpartition("/")
    name, _, digest = rest.partition("@")
    _, _, tag = name.partition(":")
    return "IfNotPresent" if (tag and tag != "latest") or (digest and not tag) else "Always"


def _container(container: JSON) -> None:
    container.setdefault("resources", {})
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    for port in _objects(container.get("ports")):
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in _objects(container.get("env")):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference and not reference.get("apiVersion"):
            reference["apiVersion"] = "v1"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(probe := container.get(name), dict):
            _probe(probe)
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http_get(handler)


def _probe(probe: JSON) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    _http_get(probe)
    if isinstance(grpc := probe.get("grpc"), dict):
        grpc.setdefault("service", "")


def _http_get(handler: JSON) -> None:
    if isinstance(get := handler.get("httpGet"), dict):
        if not get.get("path"):
            get["path"] = "/"
        if not get.get("scheme"):
            get["scheme"] = "HTTP"


def _volume(volume: JSON) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(source := volume.get(name), dict):
            source.setdefault("defaultMode", MODE)
    if isinstance(image := volume.get("image"), dict) and not image.get("pullPolicy"):
        image["pullPolicy"] = pull_policy(image.get("reference") or "")
    if isinstance(claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"), dict):
        claim_template.default(claim)
    if isinstance(host := volume.get("hostPath"), dict):
        host.setdefault("type", "")
    for source in _objects((volume.get("projected") or {}).get("sources")):
        if isinstance(token := source.get("serviceAccountToken"), dict):
            token.setdefault("expirationSeconds", 3600)


def _tolerations(spec: JSON) -> None:
    found = spec.get("tolerations") or []
    for taint in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{taint}"
        if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in found):
            found = [
                *found,
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTION_DELAY},
            ]
    if found:
        spec["tolerations"] = found
