"""When did what led to this change happen? The annotation last-change-trigger-time answers, in whole seconds.

Follows k8s.io/endpointslice's TriggerTimeTracker: the earliest of the times not seen before, of the Service's creation
and of each pod's last turn of its Ready condition.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.api.core import Service
from kubesvc.api.pods import Pod

Key = tuple[str, str]


class Triggers:
    def __init__(self) -> None:
        self._seen: dict[Key, tuple[str, dict[str, str]]] = {}  # Service -> (its creation, pod name -> Ready's turn)

    def earliest(self, service: Service, pods: Iterable[Pod]) -> str | None:
        """The earliest time not settled before, RFC 3339; None when nothing new has a time."""
        seen_created, seen = self._seen.get(service.key, ("", {}))
        fresh = [turn for name, turn in _ready_turns(pods).items() if turn > seen.get(name, "")]
        created = service.metadata.creation_timestamp or ""
        return min([*fresh, created] if created > seen_created else fresh, default=None)

    def settle(self, service: Service, pods: Iterable[Pod]) -> None:
        """What is shown by `pods` has been written."""
        self._seen[service.key] = (service.metadata.creation_timestamp or "", _ready_turns(pods))

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)


def _ready_turns(pods: Iterable[Pod]) -> dict[str, str]:
    turns = ((p.name, c.last_transition_time) for p in pods for c in p.status.conditions if c.type == "Ready")
    return {name: turn for name, turn in turns if turn}
