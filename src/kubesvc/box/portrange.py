"""What a box says when its --node-port-range no longer holds every node port in use: they are kept, as upstream."""

from __future__ import annotations

from kubesvc.api.registry import SERVICE
from kubesvc.apiserver import stored
from kubesvc.apiserver.doctor import NODE_PORTS, outside_range
from kubesvc.store.protocol import Store

_NAMED = 5  # in a warning; `doctor` names all


async def warning(store: Store, range_: tuple[int, int]) -> str:
    """One line; "" when every port lies in the range. Services are read only where there is something to say."""
    first, last = range_
    claims = [int(item.key.removeprefix(NODE_PORTS)) for item in (await store.list(NODE_PORTS)).items]
    if all(first <= port <= last for port in claims):
        return ""
    found = outside_range((await store.list(stored.collection(SERVICE))).items, first, last)
    if not found:
        return ""
    named = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    ports = "node port" if len(found) == 1 else f"{len(found)} node ports:"
    return (
        f"outside --node-port-range {first}-{last}: {ports} {named}. Kept as long as the Service has it; "
        "`kubesvc doctor` lists all"
    )
