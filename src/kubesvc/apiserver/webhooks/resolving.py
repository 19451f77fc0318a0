"""Where a Service that is a webhook is reached: one of its ready endpoints, directly.

The server has routes to pods, as it needs for what pods ask it. So the webhook's TLS ends at the pod.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.errors import NotFound, ServiceUnavailable
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.subresources import destination
from kubesvc.apiserver.subresources.destination import Wanted
from kubesvc.apiserver.subresources.proxy import slices_of
from kubesvc.apiserver.webhooks.configuration import ServiceReference


async def endpoint(state: State, reference: ServiceReference) -> tuple[str, int]:
    """(address or host name, port). Raises NotFound and ServiceUnavailable, which say the remedy."""
    namespace, name, port = reference.namespace, reference.name, reference.port
    try:
        item = await state.read(Target(SERVICE, namespace, name))
    except NotFound as error:
        raise NotFound(
            f'service "{name}" not found in namespace "{namespace}": create it, or correct clientConfig.service'
        ) from error
    service = msgspec.json.decode(item.value, type=Service)
    if service.spec.type == "ExternalName":
        return service.spec.external_name, port
    slices = await slices_of(state, namespace, name)
    try:
        found = destination.endpoint(Wanted("https", name, str(port)), service, slices, state.random.randrange)
    except ServiceUnavailable as error:
        remedy = (
            f"see that a pod of Service {namespace}/{name} is ready"
            if any(one.port == port for one in service.spec.ports)
            else f"give Service {namespace}/{name} that port, or correct clientConfig.service.port"
        )
        raise ServiceUnavailable(f"{error.message}: {remedy}") from error
    return found.address, found.port
