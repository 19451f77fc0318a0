"""What every room must agree on about a pod behind a Service: is it ready, may it serve, which port is meant.

Follows the EndpointSlice controller's rules: serving is the pod's Ready condition; ready also asks that it isn't
terminating, unless the Service publishes addresses that aren't ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubesvc.api.core import Service, ServicePort
from kubesvc.api.pods import ContainerPort, Pod


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
    for declared in declared_ports(pod):
        if declared.name == target and declared.protocol == port.protocol:
            return declared.container_port
    return None


def declared_ports(pod: Pod) -> Iterator[ContainerPort]:
    """Of its containers and sidecars."""
    for container in pod.spec.containers:
        yield from container.ports
    for container in pod.spec.init_containers:
        if container.restart_policy == "Always":
            yield from container.ports


def unnamed_target_ports(service: Service, pods: Iterable[Pod]) -> list[str]:
    """What is wrong with each `targetPort` that is a name and that none of `pods` gives one of its ports. Pods that end
    or have ended don't count; without others nothing is known, and nothing is wrong."""
    named_ones = [port for port in service.spec.ports if isinstance(port.target_port, str)]
    staying = [pod for pod in pods if not pod_is_finished(pod) and not pod_is_terminating(pod)] if named_ones else []
    found = []
    for port in named_ones if staying else ():
        if all(resolve_target_port(port, pod) is None for pod in staying):
            named = sorted({f"{p.name}/{p.protocol}" for pod in staying for p in declared_ports(pod) if p.name})
            found.append(
                f"port {port.port}: none of its pods has a port named {port.target_port}/{port.protocol}; "
                f"they have {', '.join(named) or 'none with a name'}: correct targetPort, or the containers' ports"
            )
    return found


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None" and service.spec.type != "ExternalName"


def cluster_ips(service: Service) -> list[str]:
    """The Service's virtual addresses, primary first; empty when it is headless, an alias, or not yet given one."""
    if service.spec.type == "ExternalName" or service.spec.cluster_ip in ("", "None"):
        return []
    return service.spec.cluster_ips or [service.spec.cluster_ip]
