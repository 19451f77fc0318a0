"""Fields that are stored but that nothing here acts on yet: each is answered with a warning, so that nothing asked for
is silently left out. When a room learns one, its line goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kubesvc.api.meta import JSON

_SERVED_VOLUMES = ("name", "emptyDir", "configMap", "secret", "downwardAPI", "projected", "hostPath",
                   "persistentVolumeClaim", "image", "ephemeral")  # fmt: skip

# a field of a spec -> whether its value asks for something that isn't done, and what happens instead
_POD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "priorityClassName": (bool, "no pod makes way for another"),
    "runtimeClassName": (bool, "the machine's own runtime is used"),
    "hostUsers": (lambda value: value is False, "the pod's users are the machine's"),
}

_CONTAINER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "volumeDevices": (bool, "there are no block devices"),
}

_SECURITY: dict[str, tuple[Callable[[Any], bool], str]] = {
    "appArmorProfile": (lambda value: (value or {}).get("type") == "Localhost", "the machine's own profile is used"),
    "seLinuxOptions": (bool, "processes have the machine's own label"),
    "procMount": (lambda value: value == "Unmasked", "/proc is masked as ever"),
}


def in_pod_spec(spec: JSON, path: str) -> Iterator[str]:
    """`spec` is a PodSpec at `path`."""
    yield from _told(_POD, spec, path)
    yield from _told(_SECURITY, spec.get("securityContext") or {}, f"{path}.securityContext")
    for section in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(section) or ()):
            where = f"{path}.{section}[{index}]"
            yield from _told(_CONTAINER, container, where)
            yield from _told(_SECURITY, container.get("securityContext") or {}, f"{where}.securityContext")
    for index, volume in enumerate(spec.get("volumes") or ()):
        for source in volume:
            if source not in _SERVED_VOLUMES:
                yield f"{path}.volumes[{index}].{source} is not served yet: the pod can't start with it"


def _told(fields: dict[str, tuple[Callable[[Any], bool], str]], tree: JSON, path: str) -> Iterator[str]:
    for field, (asks, instead) in fields.items():
        if asks(tree.get(field)):
            yield f"{path}.{field} is stored, but not acted on yet: {instead}"
