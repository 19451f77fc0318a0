"""What every room must agree on about a pod behind a Service: is it ready, may it serve, which port is meant.

Follows the EndpointSlice controller's rules: serving is the pod's Ready condition; ready also asks that it isn't
terminating, unless the Service publishes addresses that aren't ready.
"""

from __future__ import annotations

from kubesvc.api.core import Service, ServicePort
from kubesvc.api.pods import Pod


def pod_is_ready(pod: Pod) -> bool:
    """Whether the pod's own Ready condition is True."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def pod_is_terminating(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def pod_is_finished(pod: Pod) -> bool:
    """Succeeded or Failed: it will never serve again."""
    return pod.status.phase in ("Succeeded", "Failed")


def endpoint_conditions(service: Service, pod: Pod) -> tuple[bool, bool, bool]:
    """(ready, serving, terminating) of `pod` as an endpoint of `service`."""
    serving = pod_is_ready(pod)
    terminating = pod_is_terminating(pod)
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    return ready, serving, terminating


def resolve_target_port(port: ServicePort, pod: Pod) -> int | None:
    """The pod's port number that `port.target_port` means, or None when the pod names no such port.

    A number means itself, a name is looked up among the containers' ports of the same protocol, nothing means
    the Service's own port. Sidecars, the init containers that stay, come after the containers.
    """
    target = port.target_port
    if target is None or target == 0 or target == "":
        return port.port
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    sidecars = [c for c in pod.spec.init_containers if c.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return None


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None" and service.spec.type != "ExternalName"


def cluster_ips(service: Service) -> list[str]:
    """The Service's virtual addresses, primary first; empty when it is headless, an alias, or not yet given one."""
    if service.spec.type == "ExternalName" or service.spec.cluster_ip in ("", "None"):
        return []
    return service.spec.cluster_ips or [service.spec.cluster_ip]
